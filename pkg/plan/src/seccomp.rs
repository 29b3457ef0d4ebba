//! `/linux/seccomp`: the filter, compiled.

use crate::Host;
use cofferdam_seccomp::interpret::Preview;
use cofferdam_seccomp::{Program, Seccomp, Target};
use cofferdam_spec::{Profile, Refused};
use cofferdam_step::Step;

pub(crate) const SECTION: &str = "config-linux.md#seccomp";

/// The step that loads a profile's filter, and the compiler's warnings. The filter of a profile that is not read yet comes later.
pub(crate) fn load(profile: &Profile, host: &Host) -> Result<(Step, Vec<String>), Refused> {
    match profile {
        Profile::Read(profile) => {
            let program = compile(profile, host)?;
            Ok((
                Step::LoadSeccomp { filter: Some(program.to_bytes()), flags: program.flags },
                program.warnings,
            ))
        }
        Profile::Unread { .. } => {
            target(host)?;
            Ok((Step::LoadSeccomp { filter: None, flags: 0 }, Vec::new()))
        }
    }
}

pub(crate) fn compile(profile: &Seccomp, host: &Host) -> Result<Program, Refused> {
    cofferdam_seccomp::compile(profile, target(host)?)
        .map_err(|error| Refused::new(error.pointer, SECTION, error.sentence))
}

fn target(host: &Host) -> Result<&Target, Refused> {
    let none = || Refused::new("/linux/seccomp", SECTION, "this kernel has no seccomp filters");
    host.seccomp.as_ref().ok_or_else(none)
}

/// Whether `create` loads it, and not `start`: a filter with a listener. Whoever is to answer its calls hears of the container when that is
/// made, as with runc, and a container that nobody is going to answer is not made. A filter that does not let through what init does until
/// its start can only be loaded behind that.
pub(crate) fn belongs_to_create(load: &Step) -> bool {
    const LISTENER: u32 = cofferdam_seccomp::flag::NEW_LISTENER;
    const UNTIL_START: [&str; 8] =
        ["sendto", "recvmsg", "close", "signalfd4", "ppoll", "accept4", "clock_gettime", "exit_group"];
    let Step::LoadSeccomp { filter: Some(filter), flags } = load else { return false };
    let Some(arch) = cofferdam_seccomp::native_arch().filter(|_| flags & LISTENER != 0) else { return false };
    let preview = Preview::new(filter, arch);
    UNTIL_START.iter().all(|name| preview.allows(name, [None; 6]))
}
