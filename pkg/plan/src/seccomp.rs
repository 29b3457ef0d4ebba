//! `/linux/seccomp`: the filter, compiled.

use crate::Host;
use cofferdam_seccomp::Seccomp;
use cofferdam_seccomp::interpret::Preview;
use cofferdam_spec::Refused;
use cofferdam_step::Step;

/// The step that loads a profile's filter, and the compiler's warnings.
pub(crate) fn load(profile: &Seccomp, host: &Host) -> Result<(Step, Vec<String>), Refused> {
    const SECTION: &str = "config-linux.md#seccomp";
    let Some(target) = &host.seccomp else {
        return Err(Refused::new("/linux/seccomp", SECTION, "this kernel has no seccomp filters"));
    };
    let program = cofferdam_seccomp::compile(profile, target)
        .map_err(|error| Refused::new(error.pointer, SECTION, error.sentence))?;
    let filter = program.to_bytes();
    Ok((Step::LoadSeccomp { filter, flags: program.flags }, program.warnings))
}

/// Whether `create` loads it, and not `start`: a filter with a listener. Whoever is to answer its calls hears of the container when that is
/// made, as with runc, and a container that nobody is going to answer is not made. A filter that does not let through what init does until
/// its start can only be loaded behind that.
pub(crate) fn belongs_to_create(load: &Step) -> bool {
    const LISTENER: u32 = cofferdam_seccomp::flag::NEW_LISTENER;
    const UNTIL_START: [&str; 8] =
        ["sendto", "recvmsg", "close", "signalfd4", "ppoll", "accept4", "clock_gettime", "exit_group"];
    let Step::LoadSeccomp { filter, flags } = load else { return false };
    let Some(arch) = cofferdam_seccomp::native_arch().filter(|_| flags & LISTENER != 0) else { return false };
    let preview = Preview::new(filter, arch);
    UNTIL_START.iter().all(|name| preview.allows(name, [None; 6]))
}
