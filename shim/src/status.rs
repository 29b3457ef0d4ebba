//! The errors that containerd reads: a gRPC code, and a message in the words of containerd's own shim, which ends in the
//! sentence of its code's class so that containerd can take it off again.

use crate::runtime::Failure;
use cofferdam_proto::ttrpc;

/// A call's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// google.rpc.Code.
    pub code: i32,
    /// For a human, and for engines that match on it.
    pub message: String,
}

impl Status {
    /// No class fits.
    pub fn unknown(message: impl Into<String>) -> Status {
        Status { code: 2, message: message.into() }
    }

    /// The request itself is wrong.
    pub fn invalid_argument(message: impl Into<String>) -> Status {
        Status { code: 3, message: message.into() }
    }

    /// The caller's time is over.
    pub fn deadline_exceeded() -> Status {
        Status { code: 4, message: "context deadline exceeded".into() }
    }

    /// There is no such thing.
    pub fn not_found(message: &str) -> Status {
        Status { code: 5, message: format!("{message}: not found") }
    }

    /// There is such a thing already.
    pub fn already_exists(message: &str) -> Status {
        Status { code: 6, message: format!("{message}: already exists") }
    }

    /// More than we take.
    pub fn resource_exhausted(message: impl Into<String>) -> Status {
        Status { code: 8, message: message.into() }
    }

    /// Not in this state.
    pub fn failed_precondition(message: &str) -> Status {
        Status { code: 9, message: format!("{message}: failed precondition") }
    }

    /// We cannot do this.
    pub fn unimplemented(message: impl Into<String>) -> Status {
        Status { code: 12, message: message.into() }
    }

    /// A message that is none.
    pub fn internal(message: impl Into<String>) -> Status {
        Status { code: 13, message: message.into() }
    }

    /// Of a kill that failed, as containerd's shim sorts them.
    pub fn of_kill(failure: Failure) -> Status {
        match failure {
            Failure::NotRunning => Status::not_found("process already finished"),
            Failure::NoSuchContainer => Status::not_found("no such container"),
            other => other.into(),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        Status::unknown(failure.to_string())
    }
}

impl From<Status> for ttrpc::Status {
    fn from(status: Status) -> ttrpc::Status {
        ttrpc::Status { code: status.code, message: status.message, ..Default::default() }
    }
}
