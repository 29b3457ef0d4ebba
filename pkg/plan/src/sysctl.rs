//! `/linux/sysctl`: written once /proc is the container's.

use crate::draft::Draft;
use cofferdam_spec::Spec;
use cofferdam_step::Step;

/// One step a key, in the order of the keys.
pub(crate) fn set(draft: &mut Draft, spec: &Spec) {
    for (key, value) in &spec.linux.sysctl {
        draft.step(Step::SetSysctl { key: key.clone(), value: value.clone() });
    }
}
