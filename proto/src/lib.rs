//! The messages that a containerd shim speaks, and those that CRIU understands, generated at build time from the interface
//! files in `containerd/` and `criu/`.
//!
//! Field numbers and names are containerd's (`api/` of its repository, and `containerd/cgroups` for the metrics); the files
//! here hold the interface alone, one file a subject. Task services v2 and v3 have the same messages on the wire and differ
//! in the service's name only, so one set serves both.
//!
//! Messages inside an `Any` are named by their bare full name, as containerd's typeurl package does it; [`type_url`]
//! holds the names that are in use.

/// Messages of [ttrpc](https://github.com/containerd/ttrpc)'s frames.
pub use generated::ttrpc;

/// `containerd.runtime.bootstrap.v1`: what containerd 2.3 and newer tells a shim at its start.
pub use generated::bootstrap;

/// `io.containerd.cgroups.v1` metrics.
pub use generated::cgroups_v1;

/// `io.containerd.cgroups.v2` metrics.
pub use generated::cgroups_v2;

/// What is spoken to `criu swrk`.
pub use generated::criu;

/// `containerd.events`: what happened to a task, and the envelope it travels in.
pub use generated::events;

/// `containerd.linux.runc`: the same options as containerd 1.x's client sends them to runtime types that it does not know.
pub use generated::linux_runc_options;

/// `containerd.runc.v1` options: of a runtime, of a checkpoint, and the details of a process.
pub use generated::runc_options;

/// `containerd.types.RuntimeInfo`.
pub use generated::runtime_info;

/// `runtimeoptions.v1`: how CRI passes options to a runtime type that it does not know.
pub use generated::runtime_options;

/// `containerd.task.v2` and `containerd.task.v3`.
pub use generated::task;

pub use protobuf::{
    self, Message,
    well_known_types::{any::Any, empty::Empty, timestamp::Timestamp},
};

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

/// Names of messages inside an `Any`. On input a prefix up to the last slash may stand before the protobuf ones.
pub mod type_url {
    /// `containerd.runc.v1.Options`
    pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
    /// `containerd.runc.v1.CheckpointOptions`
    pub const RUNC_CHECKPOINT_OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";
    /// `containerd.linux.runc.CreateOptions`
    pub const LINUX_RUNC_CREATE_OPTIONS: &str = "containerd.linux.runc.CreateOptions";
    /// `containerd.linux.runc.CheckpointOptions`
    pub const LINUX_RUNC_CHECKPOINT_OPTIONS: &str = "containerd.linux.runc.CheckpointOptions";
    /// `containerd.runc.v1.ProcessDetails`
    pub const RUNC_PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";
    /// `runtimeoptions.v1.Options`
    pub const RUNTIME_OPTIONS: &str = "runtimeoptions.v1.Options";
    /// `io.containerd.cgroups.v1.Metrics`
    pub const CGROUPS_V1_METRICS: &str = "io.containerd.cgroups.v1.Metrics";
    /// `io.containerd.cgroups.v2.Metrics`
    pub const CGROUPS_V2_METRICS: &str = "io.containerd.cgroups.v2.Metrics";
    /// runtime-spec's features document, as JSON.
    pub const OCI_FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    /// runtime-spec's process, as JSON.
    pub const OCI_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    /// runtime-spec's linux.resources, as JSON.
    pub const OCI_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

    /// Tells whether `url` names the message `name`, with or without a prefix as `type.googleapis.com/`.
    pub fn names(url: &str, name: &str) -> bool {
        url == name || url.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefixed_type_url_names_the_same_message() {
        assert!(type_url::names("containerd.runc.v1.Options", type_url::RUNC_OPTIONS));
        assert!(type_url::names("type.googleapis.com/containerd.runc.v1.Options", type_url::RUNC_OPTIONS));
        assert!(!type_url::names("evilcontainerd.runc.v1.Options", type_url::RUNC_OPTIONS));
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        let request = task::CreateTaskRequest {
            id: "web".into(),
            bundle: "/run/b".into(),
            terminal: true,
            ..Default::default()
        };
        let bytes = request.write_to_bytes().unwrap();
        // field 1, length 3, "web"; field 2 ...; field 4 varint 1
        assert_eq!(bytes, b"\x0a\x03web\x12\x06/run/b\x20\x01");
        assert_eq!(task::CreateTaskRequest::parse_from_bytes(&bytes).unwrap(), request);
    }
}
