//! The floor is honest only if its containers are right: what a process sees in them is compared with what it sees in runc's,
//! line by line.

use cofferdam_bench::bench::Bench;
use cofferdam_bench::bundles::{Config, set_args};
use cofferdam_bench::options::Options;
use cofferdam_bench::peers::{Peer, Verb};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;

/// Prints, with a word before each line, all that a config decides and a process can see.
const LOOK: &str = r#"
while read -r id parent device root target options rest; do
  echo "mount $target $root $options ${rest#*- }"
done < /proc/self/mountinfo
grep -E '^(Umask|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig[BIC]|Cpus_allowed_list|Mems_allowed_list)' /proc/self/status
sed 's/^/limit /' /proc/self/limits
sed 's/^/cgroup /' /proc/self/cgroup
for list in /sys/fs/cgroup/devices/devices.list; do [ ! -e $list ] || sed 's/^/device /' $list; done
for node in /dev/*; do echo "node $(stat -c '%n %A %t:%T' $node) $(readlink $node)"; done
echo "lo $(cat /sys/class/net/lo/flags)"
echo "host $(hostname) $(pwd) $(ls /proc/self/fd | tr '\n' ' ')"
for file in self/oom_score_adj sys/net/ipv4/ip_unprivileged_port_start sys/net/ipv4/ping_group_range self/attr/current; do
  echo "$file $(cat /proc/$file 2>&1)"
done
for path in /proc/keys /proc/timer_list /proc/acpi /sys/firmware /proc/interrupts; do
  echo "masked $path $(ls $path 2>&1 | wc -w) $(cat $path 2>/dev/null | wc -l)"
done
env
"#;

/// Lines that runc's container has and the floor's has not, or the other way round, and why that is right.
const EXPLAINED: [(&str, &str); 5] = [
    ("device c 10:200 rwm", "runc 1.1 allows tun; the spec's defaults do not have it"),
    ("mount /sys/fs/cgroup / ", "the config says ro, which runc's tmpfs around v1 hierarchies is not"),
    ("node /dev/core ", "runc and crun link it where the kernel has kcore; the spec does not ask for it"),
    (
        "self/attr/current ",
        "where AppArmor has a profile for runc itself, an unconfined container's name tells",
    ),
    ("HOME=", "runc sets it from /etc/passwd where the config's environment has none"),
];

fn bench(options: &Options) -> Option<Bench<'_>> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: making containers needs root");
        return None;
    }
    let bench = Bench::new(options).expect("a place to run containers in");
    if !bench.peers.iter().any(|peer| peer.name == "runc") {
        eprintln!("skipped: no runc to compare with");
        return None;
    }
    Some(bench)
}

fn sees(bench: &Bench, peer: &Peer, config: Config) -> BTreeSet<String> {
    let case = bench
        .bundles
        .make(peer, config, "sees", |json| set_args(json, &["/bin/busybox", "sh", "-c", LOOK]))
        .expect("a bundle");
    let run = peer.command(Verb::Run, &case);
    let output = Command::new("timeout")
        .arg("60")
        .arg(run.get_program())
        .args(run.get_args())
        // The floor hands on its own environment, which for this test is the config's.
        .env_clear()
        .envs(environment(config))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("timeout");
    bench.clear(peer, &case).expect("cleared");
    let text = String::from_utf8_lossy(&output.stdout).replace(&case.id, "ID");
    assert!(output.status.success(), "{}: {}", peer.name, String::from_utf8_lossy(&output.stderr));
    text.lines().map(plain).collect()
}

fn environment(config: Config) -> Vec<(String, String)> {
    let json = config.json().expect("a config");
    let all = json["process"]["env"].as_array().expect("an environment").iter();
    let pairs = all.map(|word| word.as_str().and_then(|it| it.split_once('=')).expect("NAME=VALUE"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The empty file system that covers masked folders is limited by some versions of runc.
fn plain(line: &str) -> String {
    line.replace("tmpfs ro,size=4k,nr_inodes=1", "tmpfs ro")
}

/// One place a process.
static TURN: Mutex<()> = Mutex::new(());

fn compare(config: Config) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let options = Options::parse(["--limit", "60"].into_iter().map(String::from)).expect("options");
    let Some(bench) = bench(&options) else { return };
    let of = |name: &str| {
        let peer = bench.peers.iter().find(|peer| peer.name == name).expect("found before");
        sees(&bench, peer, config)
    };
    let (floor, runc) = (of("floor"), of("runc"));
    let is_explained = |line: &&String| EXPLAINED.iter().any(|(start, _)| line.starts_with(start));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
        a.difference(b).filter(|line| !is_explained(line)).cloned().collect()
    };
    assert!(floor.len() > 60, "the container saw little: {floor:?}");
    let (extra, missing) = (only(&floor, &runc), only(&runc, &floor));
    assert!(
        extra.is_empty() && missing.is_empty(),
        "only in the floor's: {extra:#?}\nonly in runc's: {missing:#?}"
    );
}

#[test]
fn default_config_looks_as_under_runc() {
    compare(Config::Default);
}

#[test]
fn docker_config_looks_as_under_runc() {
    compare(Config::Docker);
}
