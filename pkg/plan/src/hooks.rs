//! `/hooks`: which side runs which, and the state that each reads.

use crate::annotations::{HOOKS_STDERR, HOOKS_STDOUT};
use crate::draft::Draft;
use crate::{HostStep, Options, SlotSource};
use cofferdam_spec::{Hook, OCI_VERSION, Spec};
use cofferdam_step as step;
use cofferdam_step::{Barrier, Slot, Step};
use serde_json::Value;

/// prestart and createRuntime: init stands at a barrier, in front of the pivot, while the host side runs them.
pub(crate) fn runtime(draft: &mut Draft, spec: &Spec) {
    let kinds = [("prestart", &spec.hooks.prestart), ("createRuntime", &spec.hooks.create_runtime)];
    if kinds.iter().all(|(_, hooks)| hooks.is_empty()) {
        return;
    }
    draft.need_cgroup();
    draft.step(Step::Tell(Barrier::RuntimeHooks));
    draft.step(Step::Await(Barrier::RuntimeHooks));
    draft.host(HostStep::Await(Barrier::RuntimeHooks));
    for (kind, hooks) in kinds.into_iter().filter(|(_, hooks)| !hooks.is_empty()) {
        draft.host(HostStep::RunHooks { kind: kind.to_owned(), hooks: hooks.clone() });
    }
    draft.host(HostStep::Release(Barrier::RuntimeHooks));
}

/// createContainer: in the container's namespaces, in front of the pivot.
pub(crate) fn create_container(draft: &mut Draft, spec: &Spec, options: &Options) {
    run(draft, spec, options, "createContainer", "creating", &spec.hooks.create_container);
}

/// startContainer: in the container, in front of its process.
pub(crate) fn start_container(draft: &mut Draft, spec: &Spec, options: &Options) {
    run(draft, spec, options, "startContainer", "created", &spec.hooks.start_container);
}

fn run(draft: &mut Draft, spec: &Spec, options: &Options, kind: &str, status: &str, hooks: &[Hook]) {
    if hooks.is_empty() {
        return;
    }
    draft.need_cgroup();
    let (state_head, state_tail) = state(spec, options, status);
    let hooks = hooks.iter().map(hook).collect();
    let path = |key: &str| spec.annotations.get(key);
    let mut file = |key: &str| -> Option<Slot> {
        let path = path(key)?.clone();
        Some(draft.slot(SlotSource::HookOutput { annotation: key.to_owned(), path }))
    };
    let stdout = file(HOOKS_STDOUT);
    let stderr = if path(HOOKS_STDOUT) == path(HOOKS_STDERR) { stdout } else { file(HOOKS_STDERR) };
    let kind = kind.to_owned();
    draft.step(Step::RunHooks(step::Hooks { kind, hooks, state_head, state_tail, stdout, stderr }));
}

fn hook(hook: &Hook) -> step::Hook {
    step::Hook {
        path: hook.path.clone(),
        args: hook.args.clone(),
        env: hook.env.clone(),
        timeout: hook.timeout.and_then(|seconds| u32::try_from(seconds).ok()),
    }
}

/// The state that a hook reads (runtime.md, "State"), cut where the pid's digits go.
fn state(spec: &Spec, options: &Options, status: &str) -> (String, String) {
    let text = |value: &str| Value::from(value).to_string();
    let head = format!(
        "{{\"ociVersion\":\"{OCI_VERSION}\",\"id\":{},\"status\":\"{status}\",\"pid\":",
        text(&options.id)
    );
    let mut tail = format!(",\"bundle\":{}", text(&options.bundle));
    for (i, (key, value)) in spec.annotations.iter().enumerate() {
        tail.push_str(if i == 0 { ",\"annotations\":{" } else { "," });
        tail.push_str(&format!("{}:{}", text(key), text(value)));
    }
    tail.push_str(if spec.annotations.is_empty() { "}" } else { "}}" });
    (head, tail)
}
