//! `/linux/devices`, and the rest of what a container finds in /dev.

use crate::draft::Draft;
use crate::mounts::{Context, is_bind};
use cofferdam_spec::{Device, DeviceType, Spec, clean};
use cofferdam_step::Step;

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFMT: u32 = 0o170_000;

/// Devices that every container has (config-linux.md, "Default Devices"), all character devices of mode 0666.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

/// Links that every container has (runtime-linux.md, "Dev symbolic links").
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// runc's own, for kernels with CONFIG_PROC_KCORE.
const CORE: (&str, &str) = ("/dev/core", "/proc/kcore");

/// A /dev that is bound from the host is taken as it is.
pub(crate) fn are_ours(spec: &Spec) -> bool {
    !spec.mounts.iter().any(|entry| is_bind(entry) && clean(&entry.destination) == "/dev")
}

/// Nodes, ptmx and links.
pub(crate) fn make(draft: &mut Draft, context: &Context<'_>) {
    let configured = &context.spec.linux.devices;
    for (path, major, minor) in DEFAULT {
        if !configured.iter().any(|device| clean(&device.path) == path) {
            let mode = S_IFCHR | 0o666;
            let path = path.to_owned();
            make_one(
                draft,
                context,
                Step::MakeDevice { path, mode, major, minor, uid: Some(0), gid: Some(0) },
            );
        }
    }
    for device in configured {
        let step = configured_device(device);
        // ptmx is the container's own devpts instance's.
        if !matches!(&step, Step::MakeDevice { path, .. } if path == "/dev/ptmx") {
            make_one(draft, context, step);
        }
    }
    draft.step(Step::MakeSymlink {
        path: "/dev/ptmx".to_owned(),
        target: "pts/ptmx".to_owned(),
        replace: true,
    });
    for (path, target) in LINKS.into_iter().chain(context.host.kcore.then_some(CORE)) {
        draft.step(Step::MakeSymlink { path: path.to_owned(), target: target.to_owned(), replace: false });
    }
}

fn configured_device(device: &Device) -> Step {
    let kind = match device.kind {
        DeviceType::Char | DeviceType::Unbuffered => S_IFCHR,
        DeviceType::Block => S_IFBLK,
        DeviceType::Fifo => S_IFIFO,
    };
    // check() has bounded the numbers.
    let number = |number: i64| u32::try_from(number).unwrap_or_default();
    Step::MakeDevice {
        path: clean(&device.path).into_owned(),
        mode: kind | device.file_mode.unwrap_or(0o666) & !S_IFMT,
        major: number(device.major),
        minor: number(device.minor),
        uid: Some(device.uid.unwrap_or_default()),
        gid: Some(device.gid.unwrap_or_default()),
    }
}

/// Nodes cannot be made in a user namespace: there the host's of the same path is bound.
fn make_one(draft: &mut Draft, context: &Context<'_>, step: Step) {
    let step = match step {
        Step::MakeDevice { path, .. } if context.ids.user_namespace || context.host.user_namespace => {
            let slot = context.device_slot(draft, &path);
            Step::BindDevice { source: path.clone(), path, slot }
        }
        step => step,
    };
    draft.step(step);
}
