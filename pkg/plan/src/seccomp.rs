//! `/linux/seccomp`: the filter, compiled.

use crate::Host;
use cofferdam_seccomp::Seccomp;
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
