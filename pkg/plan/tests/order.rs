//! The order of the two lists, over every kind of plan: barriers pair and cannot block each other, and what follows a barrier,
//! the pivot or the seccomp filter may follow it.

mod support;

use cofferdam_plan::{ExecOptions, ExecTarget, Host, HostStep, Options, Plan, compile, compile_exec};
use cofferdam_step::{Barrier, Namespace, Step};
use serde_json::{Value, json};
use support::{changed, linux_7, newest, options, rootless, userns, v1, v2};

fn hooks() -> Value {
    let one = json!([{"path": "/bin/true"}]);
    json!({
        "prestart": one, "createRuntime": one, "createContainer": one, "startContainer": one, "poststart": one,
        "poststop": one
    })
}

fn seccomp() -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]})
}

/// A profile that asks somebody about a call.
fn asking_about(call: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "syscalls": [{"names": [call], "action": "SCMP_ACT_NOTIFY"}]})
}

/// A container in somebody else's pid namespace.
fn shared_pids(mut change: Value) -> Value {
    change["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/p"}]);
    change["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]);
    change
}

/// Configs that take every turn of the compiler.
fn changes() -> Vec<Value> {
    let namespaces = |more: Value| {
        let mut list = vec![json!({"type": "mount"}), json!({"type": "uts"})];
        list.extend(more.as_array().unwrap().iter().cloned());
        json!({"linux": {"namespaces": list}})
    };
    let mut changes = vec![
        json!({}),
        json!({"hooks": hooks()}),
        json!({"linux": {"seccomp": seccomp()}}),
        json!({"linux": {"seccomp": seccomp()}, "process": {"noNewPrivileges": false}, "hooks": hooks()}),
        json!({"process": {"capabilities": null, "noNewPrivileges": false}, "linux": {"seccomp": seccomp()}}),
        json!({"linux": {"seccomp": asking_about("mkdir")}}),
        json!({"process": {"noNewPrivileges": false}, "linux": {"seccomp": asking_about("mkdir")}, "hooks": hooks()}),
        json!({"linux": {"seccomp": asking_about("accept4")}, "hooks": hooks()}),
        json!({"process": {"oomScoreAdj": 3, "cwd": "/srv", "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}}}),
        json!({"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["tmpcopyup", "ro"]}]}),
        userns(json!({})),
        userns(json!({"hooks": hooks()})),
        userns(json!({"mounts": [
            {"destination": "/a", "type": "tmpfs"},
            {"destination": "/b", "type": "bind", "source": "/bundle/rootfs/a", "options": ["rbind", "idmap"]},
            {"destination": "/c", "type": "bind", "source": "/srv", "options": ["rbind"]},
            {"destination": "/d", "type": "bind", "source": "/bundle/rootfs/b", "options": ["bind", "ridmap"]}
        ]})),
        namespaces(json!([{"type": "cgroup"}])),
        namespaces(json!([{"type": "time"}])),
        namespaces(json!([{"type": "pid", "path": "/p"}, {"type": "network", "path": "/n"}])),
        namespaces(json!([{"type": "pid", "path": "/p"}, {"type": "time"}, {"type": "cgroup"}])),
        shared_pids(json!({"process": {"noNewPrivileges": false}, "linux": {"seccomp": seccomp()}})),
        shared_pids(json!({"hooks": hooks()})),
        namespaces(json!([{"type": "user", "path": "/u"}, {"type": "pid", "path": "/p"}, {"type": "time"}])),
    ];
    let mut time = namespaces(json!([{"type": "time"}]));
    time["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 7}});
    changes.push(time);
    let mut both = userns(json!({"hooks": hooks()}));
    both["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    both["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
    changes.push(both);
    changes
}

/// Every plan that the changes give on every machine, for create, run and exec.
fn plans() -> Vec<(String, Plan)> {
    let mut plans = Vec::new();
    let hosts: [(&str, Host); 5] = [
        ("v1", v1()),
        ("v2", v2()),
        ("rootless", rootless()),
        ("the newest", newest()),
        ("Linux 7", linux_7()),
    ];
    for (name, host) in hosts {
        for change in changes() {
            for run in [false, true] {
                let options = Options { run, ..options() };
                let plan = compile(&changed(change.clone()), &host, &options).unwrap();
                plans.push((format!("run {run} on {name}: {change}"), plan));
            }
            let mut spec = changed(change.clone());
            spec.read_all().unwrap();
            let created = compile(&spec, &host, &options()).unwrap();
            let target = ExecTarget::of(&spec, &host, &options(), &created).unwrap();
            plans.push((format!("create on {name}, all of the config read: {change}"), created));
            let process = spec.process.as_ref().unwrap();
            let plan = compile_exec(process, &target, &host, &ExecOptions::default()).unwrap();
            plans.push((format!("exec on {name}: {change}"), plan));
        }
    }
    plans
}

#[test]
fn each_barrier_is_paired() {
    for (name, plan) in plans() {
        let released: Vec<Barrier> = plan.host.iter().filter_map(release).collect();
        let awaited: Vec<Barrier> = plan.init.iter().filter_map(awaiting).collect();
        assert_eq!(released, awaited, "bytes are sent in the order in which they are read: {name}");
        let told: Vec<Barrier> = plan.init.iter().filter_map(tell).collect();
        let expected: Vec<Barrier> = plan.host.iter().filter_map(host_await).collect();
        assert_eq!(told, expected, "reports are sent in the order in which they are read: {name}");
        for barrier in &told {
            assert!(awaited.contains(barrier), "init tells {barrier} and goes on at once: {name}");
        }
    }
}

/// Behind it the host's root is out of sight.
fn has_the_root(step: &Step) -> bool {
    matches!(step, Step::PivotRoot { .. } | Step::EnterRoot { .. } | Step::ChangeRoot { path: None })
}

fn release(step: &HostStep) -> Option<Barrier> {
    if let HostStep::Release(barrier) = step { Some(*barrier) } else { None }
}

fn host_await(step: &HostStep) -> Option<Barrier> {
    if let HostStep::Await(barrier) = step { Some(*barrier) } else { None }
}

fn awaiting(step: &Step) -> Option<Barrier> {
    match step {
        Step::Await(barrier) => Some(*barrier),
        Step::AwaitTree { .. } => Some(Barrier::TreeWanted),
        _ => None,
    }
}

fn tell(step: &Step) -> Option<Barrier> {
    if let Step::Tell(barrier) = step { Some(*barrier) } else { None }
}

/// Whether it has come; each is awaited once.
fn take(sent: &mut Vec<Barrier>, barrier: Barrier) -> bool {
    let at = sent.iter().position(|known| *known == barrier);
    at.map(|at| sent.remove(at)).is_some()
}

/// Both sides walk their lists as far as they can, in turns: who waits for what the other has not sent stands still.
#[test]
fn neither_side_waits_for_the_other_for_ever() {
    for (name, plan) in plans() {
        let (mut host, mut init, mut spawned, mut cloned) = (0, 0, false, false);
        let (mut released, mut told) = (Vec::new(), Vec::new());
        loop {
            let before = (host, init);
            while let Some(step) = plan.host.get(host) {
                match step {
                    HostStep::Spawn => spawned = true,
                    HostStep::FollowClone if !cloned => break,
                    HostStep::Release(barrier) => released.push(*barrier),
                    HostStep::Await(barrier) if !take(&mut told, *barrier) => break,
                    _ => {}
                }
                host += 1;
            }
            while let Some(step) = plan.init.get(init).filter(|_| spawned) {
                match step {
                    Step::Clone { .. } => cloned = true,
                    Step::Tell(barrier) => told.push(*barrier),
                    step if awaiting(step).is_some_and(|barrier| !take(&mut released, barrier)) => break,
                    _ => {}
                }
                init += 1;
            }
            if (host, init) == before {
                break;
            }
        }
        assert_eq!(host, plan.host.len(), "the host side stands still: {name}");
        assert_eq!(init, plan.init.len(), "init stands still: {name}");
    }
}

/// The host side hears of a clone exactly once, and of a process that nothing but its end can take away by then.
#[test]
fn each_clone_is_followed() {
    for (name, plan) in plans() {
        let clones = plan.init.iter().filter(|step| matches!(step, Step::Clone { .. })).count();
        let followed = plan.host.iter().filter(|step| **step == HostStep::FollowClone).count();
        assert_eq!((clones, followed), if plan.road.staged { (1, 1) } else { (0, 0) }, "{name}");
        let host = |step: HostStep| plan.host.iter().position(|known| *known == step);
        assert!(host(HostStep::FollowClone) < host(HostStep::Commit), "the wrong pid is written: {name}");
        let Some(clone) = at(&plan, |step| matches!(step, Step::Clone { .. })) else { continue };
        let speaks = plan.init[clone..].iter().position(|step| matches!(step, Step::Tell(_)));
        let listens = plan.init[clone..].iter().position(|step| matches!(step, Step::Await(_)));
        assert!(speaks.is_none() || listens < speaks, "a clone's words may overtake the news of it: {name}");
    }
}

/// Who is in the pid namespace already may trace whatever turns up there.
#[test]
fn what_a_shared_pid_namespace_sees_has_the_containers_root_and_rights() {
    let mut seen = 0;
    for (name, plan) in
        plans().into_iter().filter(|(name, _)| name.contains("on the newest") || name.contains("on Linux 7"))
    {
        let joins = |step: &Step| matches!(step, Step::JoinNamespace { kind: Namespace::Pid, .. });
        let user = |step: &Step| matches!(step, Step::JoinNamespace { kind: Namespace::User, .. });
        if at(&plan, joins).is_none() || at(&plan, user).is_some() || name.contains("prestart") {
            continue;
        }
        seen += 1;
        let clone = at(&plan, |step| matches!(step, Step::Clone { .. })).unwrap();
        assert!(at(&plan, has_the_root).unwrap() < clone, "{name}");
        assert!(at(&plan, |step| matches!(step, Step::SetUser { .. })).unwrap() < clone, "{name}");
        assert!(at(&plan, |step| matches!(step, Step::SetCapabilities(_))).unwrap() < clone, "{name}");
        assert!(at(&plan, |step| matches!(step, Step::NewSession)).unwrap() > clone, "{name}");
        let procfs = plan.init.iter().find_map(|step| match step {
            Step::Mount(mount) if mount.destination == "/proc" => Some(mount.pid_namespace),
            _ => None,
        });
        assert!(matches!(procfs, Some(Some(_))), "{name}: {procfs:?}");
    }
    assert!(seen >= 6, "only {seen} plans join one");
}

/// A filter may trap anything: what comes behind it is nothing but the last drop of capabilities (without no_new_privs, when
/// loading needs them), the hooks that shall be below it, and the execve; and the wait for a start, where it lets that through.
#[test]
fn little_follows_the_seccomp_filter() {
    let mut seen = 0;
    for (name, plan) in plans() {
        let Some(at) = plan.init.iter().position(|step| matches!(step, Step::LoadSeccomp { .. })) else {
            continue;
        };
        seen += 1;
        // An exec that clones behind its filter: what comes then is in tests/exec.rs.
        if plan.init[at..].iter().any(|step| matches!(step, Step::Clone { .. })) {
            continue;
        }
        let privileged = !plan.init.contains(&Step::SetNoNewPrivileges);
        let listens = matches!(&plan.init[at], Step::LoadSeccomp { flags, .. } if flags & 8 != 0);
        for step in &plan.init[at + 1..] {
            let allowed = match step {
                Step::SetCapabilities(_) => privileged,
                Step::Tell(Barrier::Committed) | Step::Await(Barrier::Committed) => listens,
                Step::AwaitStart { .. } => listens,
                Step::RunHooks(hooks) => hooks.kind == "startContainer",
                Step::Exec { .. } => true,
                _ => false,
            };
            assert!(allowed, "{step} follows the filter: {name}");
        }
    }
    assert!(seen > 20, "only {seen} plans have a filter");
}

#[test]
fn a_filter_with_a_listener_is_loaded_by_create_unless_it_is_in_the_way() {
    let where_it_is = |change: Value, run: bool| {
        let plan = compile(&changed(change), &v2(), &Options { run, ..options() }).unwrap();
        let load = at(&plan, |step| matches!(step, Step::LoadSeccomp { .. })).unwrap();
        let capabilities = plan.init.iter().rposition(|step| matches!(step, Step::SetCapabilities(_)));
        let committed = at(&plan, |step| *step == Step::Await(Barrier::Committed)).unwrap();
        (load < committed, capabilities.unwrap() < committed)
    };
    let asks = |call| json!({"linux": {"seccomp": asking_about(call)}});
    assert_eq!(where_it_is(asks("mkdir"), false), (true, true));
    assert_eq!(where_it_is(asks("mkdir"), true), (false, true));
    let mut privileged = asks("mkdir");
    privileged["process"]["noNewPrivileges"] = json!(false);
    assert_eq!(where_it_is(privileged.clone(), false), (true, true));
    assert_eq!(where_it_is(privileged, true), (false, false));
    for call in ["sendto", "recvmsg", "close", "signalfd4", "ppoll", "accept4", "clock_gettime", "exit_group"]
    {
        assert_eq!(where_it_is(asks(call), false), (false, true), "{call}");
    }
    let mut strict = asks("mkdir");
    strict["linux"]["seccomp"]["defaultAction"] = json!("SCMP_ACT_ERRNO");
    assert_eq!(where_it_is(strict, false), (false, true));
    assert_eq!(where_it_is(json!({"linux": {"seccomp": seccomp()}}), false), (false, true));
}

/// Whoever finds what a crash has left must know of all that lasts: cgroups. Init does not last: it ends with the host side.
#[test]
fn what_is_going_to_be_made_is_written_down_in_front_of_it() {
    let mut behind = 0;
    for (name, plan) in plans().into_iter().filter(|(name, _)| !name.starts_with("exec")) {
        let host = |which: fn(&HostStep) -> bool| plan.host.iter().position(which).unwrap();
        let recorded = host(|step| *step == HostStep::RecordPlan);
        let prepared = host(|step| matches!(step, HostStep::PrepareCgroup { .. }));
        let spawned = host(|step| *step == HostStep::Spawn);
        assert_eq!(prepared, recorded + 1, "{name}");
        assert!(prepared < host(|step| *step == HostStep::CompleteCgroup), "{name}");
        assert!(prepared < spawned || !name.contains("on v2"), "init is born in its cgroup: {name}");
        behind += usize::from(spawned < prepared);
        let drafted = host(|step| *step == HostStep::DraftState);
        let last = plan
            .host
            .iter()
            .rposition(|step| matches!(step, HostStep::RunHooks { .. } | HostStep::FollowClone));
        assert!(last.is_none_or(|last| last < drafted), "it is another process, or another state: {name}");
        assert!(host(|step| *step == HostStep::EnterCgroup) < drafted, "{name}");
        assert!(
            drafted < host(|step| *step == HostStep::Await(Barrier::Committed)),
            "init waits for it: {name}"
        );
    }
    assert!(behind > 10, "only {behind} plans spawn first");
}

/// What is left unread is compiled when init is on its way and needs nothing more, and is there in front of all that a bad one must not
/// reach: hooks, the state that execs go by.
#[test]
fn a_profile_that_is_not_read_yet_is_compiled_while_init_works() {
    let mut seen = 0;
    for (name, plan) in plans() {
        let sent = at(&plan, |step| matches!(step, Step::LoadSeccomp { filter: None, .. }));
        let host = |step: HostStep| plan.host.iter().position(|known| *known == step);
        let compiled = host(HostStep::CompileFilter);
        assert_eq!(sent.is_some(), compiled.is_some(), "{name}");
        let (Some(sent), Some(compiled)) = (sent, compiled) else { continue };
        seen += 1;
        assert!(
            host(HostStep::Release(Barrier::CgroupJoined)).unwrap() < compiled,
            "init waits for it: {name}"
        );
        let acts = |step: &HostStep| matches!(step, HostStep::RunHooks { .. } | HostStep::Commit);
        assert!(compiled < plan.host.iter().position(acts).unwrap(), "{name}");
        assert!(at(&plan, |step| *step == Step::Await(Barrier::Committed)).unwrap() < sent, "{name}");
    }
    assert!(seen > 20, "only {seen} plans have one");
}

/// All that can fail has failed by the time `create` returns.
#[test]
fn little_follows_the_start_barrier() {
    for (name, plan) in plans() {
        let at = plan.init.iter().rposition(|step| *step == Step::Await(Barrier::Committed)).unwrap();
        for step in &plan.init[at + 1..] {
            let allowed = matches!(
                step,
                Step::AwaitStart { .. }
                    | Step::RunHooks(_)
                    | Step::LoadSeccomp { .. }
                    | Step::SetCapabilities(_)
                    | Step::Exec { .. }
            );
            assert!(allowed, "{step} follows the start barrier: {name}");
        }
    }
}

fn at(plan: &Plan, which: impl Fn(&Step) -> bool) -> Option<usize> {
    plan.init.iter().position(which)
}

#[test]
fn a_plan_ends_with_its_one_execve() {
    for (name, plan) in plans() {
        let last = plan.init.len() - 1;
        assert_eq!(at(&plan, |step| matches!(step, Step::Exec { .. })), Some(last), "{name}");
    }
}

#[test]
fn what_needs_the_cgroup_waits_for_it() {
    for (name, plan) in plans() {
        let joined = at(&plan, |step| *step == Step::Await(Barrier::CgroupJoined)).unwrap();
        for (i, step) in plan.init.iter().enumerate() {
            let needs = match step {
                Step::Unshare { namespaces } => namespaces.contains(Namespace::Cgroup),
                Step::Mount(mount) => mount.copy_up,
                Step::RunHooks(_) | Step::Tell(Barrier::RuntimeHooks | Barrier::Committed) => true,
                Step::SetAffinity { mask } => mask.is_empty(),
                _ => false,
            };
            assert!(!needs || i > joined, "{step} stands in front of the cgroup: {name}");
        }
    }
}

#[test]
fn the_root_turns_read_only_behind_everything_that_writes_to_it() {
    for (name, plan) in plans() {
        let Some(sealed) = at(&plan, |step| *step == Step::MakeRootReadonly) else { continue };
        assert!(at(&plan, has_the_root).unwrap() < sealed, "{name}");
        for step in &plan.init[sealed..] {
            let writes = matches!(
                step,
                Step::Mount(_)
                    | Step::MakeDirectory { .. }
                    | Step::MakeDevice { .. }
                    | Step::BindDevice { .. }
                    | Step::MakeSymlink { .. }
                    | Step::OpenConsole { .. }
            );
            assert!(!writes, "{step} follows the read-only root: {name}");
        }
    }
}

/// Limits and sysctls need rights that the user has not; masks cover what the user must not see, its cwd included
/// (a directory entered before it is masked stays open below the mask).
#[test]
fn rights_are_given_up_behind_what_needs_them() {
    for (name, plan) in plans() {
        let user = at(&plan, |step| matches!(step, Step::SetUser { .. })).unwrap();
        let cwd = at(&plan, |step| matches!(step, Step::ChangeDirectory { .. })).unwrap();
        assert!(user < cwd, "the user's own directories may be closed to root: {name}");
        for (i, step) in plan.init.iter().enumerate() {
            let privileged = matches!(
                step,
                Step::SetRlimit(_)
                    | Step::SetOomScoreAdj { .. }
                    | Step::SetScheduler(_)
                    | Step::SetIoPriority(_)
                    | Step::SetSysctl { .. }
                    | Step::DropBounding { .. }
                    | Step::OwnStdio { .. }
                    | Step::MaskPath { .. }
                    | Step::MakeReadonly { .. }
            );
            // What has been raised before, anybody may lower.
            let lowers = matches!(step, Step::SetRlimit(limit) if plan.init[..user].contains(&Step::RaiseRlimit(*limit)));
            assert!(!privileged || lowers || i < user, "{step} follows the change of user: {name}");
            assert!(!matches!(step, Step::SetCapabilities(_)) || i > cwd, "capabilities go first: {name}");
        }
    }
}

#[test]
fn capabilities_go_before_the_start_unless_the_filter_needs_them() {
    for (name, plan) in plans() {
        let filter = at(&plan, |step| matches!(step, Step::LoadSeccomp { .. }));
        let drop = plan.init.iter().rposition(|step| matches!(step, Step::SetCapabilities(_)));
        let Some(drop) = drop else { continue };
        let start = at(&plan, |step| *step == Step::Await(Barrier::Committed)).unwrap();
        match filter {
            Some(filter) if !plan.init.contains(&Step::SetNoNewPrivileges) => {
                assert!(filter < drop, "{name}")
            }
            _ => assert!(drop < start, "{name}"),
        }
    }
}

/// Others find the container by its state, and enter the namespaces of its process: in front of this its root is the host's.
#[test]
fn a_container_is_there_when_its_root_and_rights_are() {
    for (name, plan) in plans().into_iter().filter(|(name, _)| !name.starts_with("exec")) {
        let host = |step: HostStep| plan.host.iter().position(|known| *known == step).unwrap();
        assert!(host(HostStep::Await(Barrier::Committed)) < host(HostStep::Commit), "{name}");
        let told = at(&plan, |step| *step == Step::Tell(Barrier::Committed)).unwrap();
        assert!(at(&plan, has_the_root).unwrap() < told, "{name}");
        let user = at(&plan, |step| matches!(step, Step::SetUser { .. }));
        assert!(user.is_none_or(|user| user < told), "{name}");
        let late = plan.init[told..].iter().find(|step| {
            matches!(
                step,
                Step::Mount(_) | Step::MaskPath { .. } | Step::MakeReadonly { .. } | Step::Unshare { .. }
            )
        });
        assert_eq!(late, None, "{name}");
    }
}

#[test]
fn a_run_makes_one_round_trip_without_hooks() {
    let options = Options { run: true, ..options() };
    let plan = compile(&changed(json!({})), &v1(), &options).unwrap();
    let awaits = plan.host.iter().filter(|step| matches!(step, HostStep::Await(_))).count();
    let tells = plan.init.iter().filter(|step| matches!(step, Step::Tell(_))).count();
    assert_eq!((awaits, tells), (1, 1), "for the commit");
    assert!(!plan.init.iter().any(|step| matches!(step, Step::AwaitStart { .. })));
}

#[test]
fn hooks_run_on_their_side_in_their_order() {
    let plan = support::plan(json!({"hooks": hooks()}), &v2());
    let host = support::host_steps(&plan);
    let kinds: Vec<&str> = host.iter().map(String::as_str).filter(|step| step.contains("hooks")).collect();
    assert_eq!(
        kinds,
        [
            "await init: runtime hooks run",
            "run 1 prestart hooks",
            "run 1 createRuntime hooks",
            "tell init: runtime hooks run"
        ]
    );
    let steps = support::steps(&plan);
    let at = |what: &str| steps.iter().position(|step| step == what).unwrap();
    assert!(at("mount mqueue on /dev/mqueue") < at("tell the host: runtime hooks run"));
    assert!(at("await the host: runtime hooks run") < at("run createContainer hooks"));
    assert!(at("run createContainer hooks") < at("pivot the root"));
    assert!(at("await start") < at("run startContainer hooks"));
    assert_eq!(at("run startContainer hooks") + 2, steps.len());
}

#[test]
fn a_hook_reads_the_state_of_its_moment() {
    let change = json!({"hooks": hooks(), "annotations": {"a\"b": "c", "d": "e\n"}});
    let plan = support::plan(change, &v2());
    let states: Vec<Value> = plan
        .init
        .iter()
        .filter_map(|step| match step {
            Step::RunHooks(hooks) => {
                Some(serde_json::from_str(&format!("{}42{}", hooks.state_head, hooks.state_tail)).unwrap())
            }
            _ => None,
        })
        .collect();
    let state = |status| {
        json!({
            "ociVersion": "1.3.0", "id": "c1", "status": status, "pid": 42, "bundle": "/bundle",
            "annotations": {"a\"b": "c", "d": "e\n"}
        })
    };
    assert_eq!(states, [state("creating"), state("created")]);
}
