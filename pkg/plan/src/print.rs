//! What `cofferdam plan` prints: the two lists beside each other in time, or JSON. The values of environment variables are
//! left out of both, as they hold secrets.

use crate::{Condition, HostStep, IdMap, Plan, Road, SlotSource};
use cofferdam_step::{Attributes, Barrier, Create, Links, Mount, Namespaces, Source, Step};
use std::fmt::{Display, Formatter, Result, Write as _};

/// What stands for the value of an environment variable.
const REDACTED: &str = "…";

impl Plan {
    /// The plan without secrets, for printing: environment values are replaced, and long filters shortened to nothing.
    pub fn redacted(&self) -> Plan {
        let mut plan = self.clone();
        for step in &mut plan.init {
            match step {
                Step::Exec { env, .. } => redact(env),
                Step::RunHooks(hooks) => hooks.hooks.iter_mut().for_each(|hook| redact(&mut hook.env)),
                _ => {}
            }
        }
        for step in &mut plan.host {
            if let HostStep::RunHooks { hooks, .. } = step {
                hooks.iter_mut().for_each(|hook| redact(&mut hook.env));
            }
        }
        plan
    }

    /// The redacted plan as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.redacted()).expect("a plan has only string keys")
    }
}

fn redact(env: &mut [String]) {
    for entry in env {
        if let Some((name, _)) = entry.split_once('=') {
            *entry = format!("{name}={REDACTED}");
        }
    }
}

impl Display for Plan {
    /// Host steps and init steps, each list with its numbers; a barrier's two ends carry the same letter.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "road: {}", self.road)?;
        if !self.slots.is_empty() {
            writeln!(f, "\nslots")?;
            for (i, slot) in self.slots.iter().enumerate() {
                writeln!(f, "{i:4}  {slot}")?;
            }
        }
        writeln!(f, "\nhost")?;
        for (i, step) in self.host.iter().enumerate() {
            writeln!(f, "{:4}  {}{step}", i + 1, mark(host_barrier(step)))?;
        }
        writeln!(f, "\ninit")?;
        for (i, step) in self.init.iter().enumerate() {
            writeln!(f, "{:4}  {}{step}{}", i + 1, mark(init_barrier(step)), Detail(step))?;
        }
        if !self.conditions.is_empty() {
            writeln!(f, "\nconditions")?;
            for condition in &self.conditions {
                writeln!(f, "      {condition}")?;
            }
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nwarnings")?;
            for warning in &self.warnings {
                writeln!(f, "      {warning}")?;
            }
        }
        Ok(())
    }
}

/// Which barrier a step of the host stands at, and whether it opens it.
pub(crate) fn host_barrier(step: &HostStep) -> Option<(Barrier, bool)> {
    match step {
        HostStep::Release(barrier) => Some((*barrier, true)),
        HostStep::Await(barrier) => Some((*barrier, false)),
        _ => None,
    }
}

/// The same for init, whose telling is what the host waits for.
pub(crate) fn init_barrier(step: &Step) -> Option<(Barrier, bool)> {
    match step {
        Step::Tell(barrier) => Some((*barrier, true)),
        Step::Await(barrier) => Some((*barrier, false)),
        Step::AwaitTree { .. } => Some((Barrier::TreeWanted, false)),
        _ => None,
    }
}

/// `──A──▶` for the side that speaks, `──▶A──` for the side that waits, blanks for all other steps.
fn mark(barrier: Option<(Barrier, bool)>) -> &'static str {
    match barrier {
        None => "",
        Some((Barrier::IdsMapped, true)) => "▶A ",
        Some((Barrier::IdsMapped, false)) => "A▶ ",
        Some((Barrier::CgroupJoined, true)) => "▶B ",
        Some((Barrier::CgroupJoined, false)) => "B▶ ",
        Some((Barrier::RuntimeHooks, true)) => "▶C ",
        Some((Barrier::RuntimeHooks, false)) => "C▶ ",
        Some((Barrier::Committed, true)) => "▶D ",
        Some((Barrier::Committed, false)) => "D▶ ",
        Some((Barrier::TreesOpened, true)) => "▶E ",
        Some((Barrier::TreesOpened, false)) => "E▶ ",
        Some((Barrier::Followed, true)) => "▶F ",
        Some((Barrier::Followed, false)) => "F▶ ",
        Some((Barrier::TreeWanted, true)) => "▶G ",
        Some((Barrier::TreeWanted, false)) => "G▶ ",
        Some((Barrier::SourcesOpened, true)) => "▶H ",
        Some((Barrier::SourcesOpened, false)) => "H▶ ",
    }
}

impl Display for Road {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.staged {
            return f.write_str(
                "staged: init begins in the host's namespaces and clones the container's first process",
            );
        }
        f.write_str("direct: clone with")?;
        kinds(f, self.clone)
    }
}

fn kinds(f: &mut Formatter<'_>, namespaces: Namespaces) -> Result {
    if namespaces.is_empty() {
        return f.write_str(" nothing new");
    }
    namespaces.iter().try_for_each(|kind| write!(f, " {}", kind.spec_name()))
}

impl Display for SlotSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            SlotSource::Namespace { kind, path } => write!(f, "{} namespace {path}", kind.spec_name()),
            SlotSource::Tree { path, recursive, of_link, propagation, idmap, idmap_recursive, locked } => {
                write!(f, "{} {path}", if *recursive { "tree" } else { "mount" })?;
                if *of_link {
                    f.write_str(" itself")?;
                }
                if let Some(propagation) = propagation {
                    write!(f, ", {propagation}")?;
                }
                if let Some(idmap) = idmap {
                    write!(f, ", {} by {idmap}", if *idmap_recursive { "all idmapped" } else { "idmapped" })?;
                }
                if *locked {
                    f.write_str(", flags locked")?;
                }
                Ok(())
            }
            SlotSource::HookOutput { path, .. } => write!(f, "{path} for hooks' output"),
            SlotSource::UserNamespace(idmap) => write!(f, "user namespace of {idmap}"),
            SlotSource::ConsoleSocket => f.write_str("console socket"),
            SlotSource::StartListener => f.write_str("start listener"),
            SlotSource::Process => f.write_str("pidfd of the container's first process"),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Condition::NotOurs { slot, .. } => {
                write!(f, "slot {} is not the runtime's own namespace", slot.0)
            }
            Condition::Maps { slot, uid, gid, .. } => {
                write!(f, "slot {} maps uids {} gids {}", slot.0, mappings(uid), mappings(gid))
            }
        }
    }
}

impl Display for IdMap {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            IdMap::NamespaceFile(path) => f.write_str(path),
            IdMap::Mappings { uid, gid } => write!(f, "uids {} gids {}", mappings(uid), mappings(gid)),
        }
    }
}

fn mappings(list: &[cofferdam_spec::IdMapping]) -> String {
    let mut text = String::new();
    for (i, mapping) in list.iter().enumerate() {
        let blank = if i == 0 { "" } else { "," };
        let _ = write!(text, "{blank}{}:{}:{}", mapping.container_id, mapping.host_id, mapping.size);
    }
    text
}

impl Display for HostStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            HostStep::PrepareCgroup { placement, settings, owner } => {
                match &placement.unit {
                    Some(unit) => write!(f, "prepare cgroup unit {} in {}", unit.name, unit.slice)?,
                    None => {
                        write!(f, "prepare cgroup {}", placement.dirs.first().map_or("", |dir| &dir.path))?
                    }
                }
                if placement.dirs.len() > 1 {
                    write!(f, " and {} more", placement.dirs.len() - 1)?;
                }
                if let Some(owner) = owner {
                    write!(f, ", for uid {owner}")?;
                }
                if let Some(devices) = &settings.devices {
                    let default = if devices.allow_by_default { "all" } else { "no" };
                    write!(f, ", {default} devices but {}", devices.exceptions.len())?;
                }
                for limit in &settings.writes {
                    write!(f, "\n      {} = {}", limit.file, limit.value.trim_end())?;
                }
                if let Some(class) = &settings.class_of_service {
                    let class_name = if class.name.is_empty() { "/" } else { &class.name };
                    write!(f, "\n      resctrl {class_name}: {}", class.schemata.join(" "))?;
                }
                if !settings.properties.is_empty() {
                    let names: Vec<&str> = settings.properties.iter().map(|one| one.name.as_str()).collect();
                    write!(f, "\n      unit properties {}", names.join(" "))?;
                }
                Ok(())
            }
            HostStep::Spawn => f.write_str("spawn init"),
            HostStep::FollowClone => f.write_str("follow init to its clone"),
            HostStep::OpenTrees => f.write_str("open the mount sources in init's mount namespace"),
            HostStep::OpenSources => f.write_str("open the sources of bind mounts"),
            HostStep::OpenTree { slot } => write!(f, "open slot {} in init's mount namespace", slot.0),
            HostStep::CompleteCgroup => f.write_str("complete the cgroup"),
            HostStep::EnterCgroup => f.write_str("move init into the cgroup"),
            HostStep::RecordPlan => f.write_str("write down what is going to be made"),
            HostStep::DraftState => f.write_str("draft the state"),
            HostStep::CompileFilter => f.write_str("compile the seccomp filter"),
            HostStep::MapIds { uid, gid, deny_setgroups } => {
                write!(f, "map uids {} gids {}", mappings(uid), mappings(gid))?;
                f.write_str(if *deny_setgroups { ", deny setgroups" } else { "" })
            }
            HostStep::MoveNetworkDevices { devices, .. } => {
                let names = devices.iter().map(|device| format!("{} as {}", device.name, device.new_name));
                write!(f, "move network devices {}", names.collect::<Vec<_>>().join(", "))
            }
            HostStep::SetOomScoreAdj { value } => write!(f, "set oom_score_adj of init to {value}"),
            HostStep::SetRlimits { limits } => write!(f, "set {} rlimits of init", limits.len()),
            HostStep::Release(barrier) => write!(f, "tell init: {barrier}"),
            HostStep::Await(barrier) => write!(f, "await init: {barrier}"),
            HostStep::RunHooks { kind, hooks } => write!(f, "run {} {kind} hooks", hooks.len()),
            HostStep::Commit => f.write_str("publish state and pid file"),
        }
    }
}

/// What the step's own few words leave out.
struct Detail<'a>(&'a Step);

impl Display for Detail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Step::Mount(mount) => detail_of(f, mount),
            Step::SetSysctl { value, .. } => write!(f, " = {value}"),
            Step::SetUser { additional_gids: Some(gids), .. } if !gids.is_empty() => {
                write!(f, " groups {gids:?}")
            }
            Step::DropBounding { keep } => write!(f, " but {}", keep.count_ones()),
            Step::SetCapabilities(sets) => write!(
                f,
                ": {} effective, {} permitted, {} inheritable, {} ambient",
                sets.effective.count_ones(),
                sets.permitted.count_ones(),
                sets.inheritable.count_ones(),
                sets.ambient.count_ones()
            ),
            Step::Exec { args, env } => {
                args.iter().skip(1).try_for_each(|arg| write!(f, " {arg}"))?;
                let names: Vec<&str> = env
                    .iter()
                    .map(|entry| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name))
                    .collect();
                write!(f, "\n      with {}", names.join(" "))
            }
            _ => Ok(()),
        }
    }
}

/// `MOUNT_ATTR_*` by the names of the options that set and clear them.
const ATTRIBUTES: [(u64, &str, &str); 6] = [
    (0x1, "ro", "rw"),
    (0x2, "nosuid", "suid"),
    (0x4, "nodev", "dev"),
    (0x8, "noexec", "exec"),
    (0x80, "nodiratime", "diratime"),
    (0x20_0000, "nosymfollow", "symfollow"),
];

/// The words of a change of attributes.
fn attributes(change: Attributes, prefix: &str, words: &mut Vec<String>) {
    for (bit, set, cleared) in ATTRIBUTES {
        if change.set & bit != 0 {
            words.push(format!("{prefix}{set}"));
        } else if change.clear & bit != 0 {
            words.push(format!("{prefix}{cleared}"));
        }
    }
    if change.clear & 0x70 != 0 {
        let atime = match change.set & 0x70 {
            0x10 => "noatime",
            0x20 => "strictatime",
            _ => "relatime",
        };
        words.push(format!("{prefix}{atime}"));
    }
}

fn detail_of(f: &mut Formatter<'_>, mount: &Mount) -> Result {
    let mut words: Vec<String> = Vec::new();
    attributes(mount.attributes, "", &mut words);
    attributes(mount.recursive, "r", &mut words);
    words.extend(mount.propagation.iter().map(ToString::to_string));
    if let Source::New { options, inherit_mode, .. } = &mount.source {
        words.extend(options.iter().map(|option| match &option.value {
            Some(value) => format!("{}={value}", option.key),
            None => option.key.clone(),
        }));
        words.extend(inherit_mode.then(|| "mode as covered".to_owned()));
    }
    words.extend(mount.copy_up.then(|| "copy up".to_owned()));
    words.extend((mount.create == Create::SameLink).then(|| "a link as a link".to_owned()));
    words.extend(matches!(mount.source, Source::Link { .. }).then(|| "the source itself".to_owned()));
    words.extend((mount.links == Links::Covered).then(|| "over a link".to_owned()));
    words.extend(mount.idmap.map(|slot| format!("idmapped by slot {}", slot.0)));
    words.extend(mount.pid_namespace.map(|slot| format!("of the pid namespace in slot {}", slot.0)));
    if !words.is_empty() {
        write!(f, " ({})", words.join(","))?;
    }
    match &mount.or_else {
        Some(other) => write!(f, ", or else {other}"),
        None => Ok(()),
    }
}
