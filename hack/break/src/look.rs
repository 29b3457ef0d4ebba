//! What a container sees of itself, as text that is the same for the same container.

/// The container's program: prints all that it can find out.
pub const SCRIPT: &str = r#"
echo '# mounts'; cat /proc/self/mountinfo
echo '# status'; grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap|Sig(Blk|Ign)|Umask)' /proc/self/status
echo '# devices'; stat -c '%A %u:%g %t:%T %N' /dev/* /dev/*/* 2>/dev/null
echo '# descriptors'; ls /proc/self/fd | wc -l
echo '# limits'; cat /proc/self/limits
echo '# cgroups'; cat /proc/self/cgroup
echo '# names'; hostname; pwd; id; env | sort
echo '# namespaces'; [ -n "$(readlink /proc/self/ns/net)" ] && ls /sys/class/net
echo '# processes'; cat /proc/1/comm; ls -d /proc/[0-9] | wc -l
echo '# own'; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ping_group_range
echo '# masked'; for f in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /sys/firmware; do
  [ -e $f ] && stat -c '%F %n' $f && ls $f | wc -l; done
echo '# read-only'; for d in /proc/sys/kernel/hostname /sys/x /volume/x /kept/new/deep/x /one-file /scratch/x /x; do
  (: >$d) 2>&1; rm -f /kept/new/deep/x /x; done
echo '# volumes'; ls -lRn /volume /scratch 2>/dev/null | sed 's/  *[A-Z][a-z][a-z]  *[0-9].* / /'
"#;

/// Leaves out what differs from one time to the next: mount and device numbers, and so the order of mounts.
pub fn normal(text: &str) -> String {
    let mut lines = Vec::new();
    let mut mounts = Vec::new();
    let mut in_mounts = false;
    for line in text.lines() {
        if line.starts_with("# ") {
            in_mounts = line == "# mounts";
        }
        if in_mounts { mounts.push(mount(line)) } else { lines.push(line.to_owned()) }
    }
    mounts.sort();
    mounts.extend(lines);
    mounts.join("\n")
}

/// Root, mount point, options, whether it is shared, type, source, options of the superblock.
fn mount(line: &str) -> String {
    let Some((mount, fs)) = line.split_once(" - ") else { return line.to_owned() };
    let fields: Vec<&str> = mount.split(' ').collect();
    let (head, optional) = fields.split_at(fields.len().min(6));
    let kinds: Vec<&str> = optional.iter().map(|field| field.split(':').next().unwrap_or_default()).collect();
    format!("{} {} - {fs}", head.iter().skip(3).copied().collect::<Vec<_>>().join(" "), kinds.join(","))
}

/// The lines in which two views differ, at most six of them.
pub fn difference(want: &str, got: &str) -> Vec<String> {
    let (want, got): (Vec<&str>, Vec<&str>) = (want.lines().collect(), got.lines().collect());
    let lost =
        want.iter().filter(|line| !got.contains(line)).map(|line| format!("without the fault: {line}"));
    let new = got.iter().filter(|line| !want.contains(line)).map(|line| format!("with the fault: {line}"));
    let mut lines: Vec<String> = lost.chain(new).take(6).collect();
    if lines.is_empty() && want != got {
        lines.push("the same lines in another order".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_mounts_do_not_matter() {
        let text = |id: u32| {
            format!(
                "# mounts\n{id} {} 0:{id} / /dev rw,nosuid master:{id} - tmpfs tmpfs rw,size=64k\n# own\n{id}",
                id + 1
            )
        };
        let (one, two) = (normal(&text(1)), normal(&text(2)));
        assert_eq!(one.lines().nth(1), Some("/ /dev rw,nosuid master - tmpfs tmpfs rw,size=64k"));
        assert_eq!(difference(&one, &two), ["without the fault: 1", "with the fault: 2"]);
    }
}
