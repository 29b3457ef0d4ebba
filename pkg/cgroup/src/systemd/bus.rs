//! A connection to systemd: over its private socket where we are root and there is one, else over the message bus.
//!
//! libcgroups has a D-Bus client without dependencies, but keeps it private (`mod dbus_native`), and it neither waits
//! for jobs nor bounds what a peer may send. This one knows five calls and one signal. Every wait ends: a connection
//! has a deadline, set anew for each thing that is asked for.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use crate::error::CgroupError;
use crate::systemd::property::Property;
use crate::systemd::wire::{self, Call, Message, Reader, Writer};

/// For one call.
const CALL_TIME: Duration = Duration::from_secs(30);
/// For a job, as runc.
const JOB_TIME: Duration = Duration::from_secs(30);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";

const PRIVATE: &str = "/run/systemd/private";
const SYSTEM: &str = "/run/dbus/system_bus_socket";

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// systemd answered with this error name and text.
    Answer {
        /// Last part of the D-Bus error name, e.g. `UnitExists`.
        name: String,
        /// For people.
        text: String,
    },
    /// The way to systemd.
    Io(io::Error),
}

impl Failure {
    pub(crate) fn is(&self, error: &str) -> bool {
        matches!(self, Failure::Answer { name, .. } if name == error)
    }

    pub(crate) fn during(self, action: impl Into<String>) -> CgroupError {
        let reason = match self {
            Failure::Answer { name, text } => format!("{text} ({name})"),
            Failure::Io(error) => error.to_string(),
        };
        CgroupError::Systemd { action: action.into(), reason }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

/// An authenticated connection.
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// systemd itself is the peer: no Hello, and signals come without being asked for.
    direct: bool,
    /// Jobs that ended while we waited for something else: path and result.
    ended: Vec<(String, String)>,
    deadline: Instant,
}

impl Bus {
    /// Connects to the manager of the system, or of the calling user.
    pub(crate) fn connect(user: bool) -> Result<Bus, CgroupError> {
        let failed = |error: Failure| error.during("connect to systemd");
        if user {
            let (stream, direct) = connect_user().map_err(|error| failed(error.into()))?;
            return Bus::over(stream, direct).map_err(failed);
        }
        // systemctl takes the private socket, too, when it is root. It saves the bus daemon's part of the way, and there
        // are hosts without such a daemon.
        if nix::unistd::geteuid().is_root()
            && let Ok(stream) = UnixStream::connect(PRIVATE)
        {
            return Bus::over(stream, true).map_err(failed);
        }
        let stream = UnixStream::connect(SYSTEM).map_err(|error| failed(error.into()))?;
        Bus::over(stream, false).map_err(failed)
    }

    /// Authenticates over a connected socket.
    pub(crate) fn over(stream: UnixStream, direct: bool) -> Result<Bus, Failure> {
        let mut bus =
            Bus { stream, serial: 0, direct, ended: Vec::new(), deadline: Instant::now() + CALL_TIME };
        // Without an identity of our own choice: the peer takes the one that the kernel tells it, which is right in
        // a user namespace, too. All in one, as sd-bus has it; a peer reads it line by line.
        bus.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            match bus.line()?.as_str() {
                "DATA" => {}
                line if line.starts_with("OK ") || line == "OK" => break,
                line => return Err(io::Error::other(format!("authentication refused: {line:?}")).into()),
            }
        }
        if !direct {
            let peer = "org.freedesktop.DBus";
            let call = |member, signature| Call {
                destination: peer,
                path: "/org/freedesktop/DBus",
                interface: peer,
                member,
                signature,
            };
            bus.call(&call("Hello", ""), Writer::default())?;
            let mut rule = Writer::default();
            rule.string(&format!(
                "type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"
            ));
            bus.call(&call("AddMatch", "s"), rule)?;
            // systemd sends signals to the bus only while somebody there has subscribed.
            bus.manager("Subscribe", "", Writer::default())?;
        }
        Ok(bus)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => buffer = &mut buffer[length..],
                // EAGAIN is how a socket's timeout shows; the deadline decides.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A line of the authentication.
    fn line(&mut self) -> io::Result<String> {
        const LONGEST: usize = 1024;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LONGEST {
                return Err(io::Error::other("endless line during authentication"));
            }
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn receive(&mut self) -> io::Result<Message> {
        let malformed = || io::Error::other("malformed D-Bus message");
        let mut fixed = [0; wire::FIXED];
        self.fill(&mut fixed)?;
        let mut bytes = vec![0; wire::length(&fixed).ok_or_else(malformed)?];
        bytes[..wire::FIXED].copy_from_slice(&fixed);
        self.fill(&mut bytes[wire::FIXED..])?;
        Message::parse(&bytes).ok_or_else(malformed)
    }

    /// Sends a call without waiting for its answer; the result is its serial number.
    fn post(&mut self, call: &Call<'_>, body: Writer) -> io::Result<u32> {
        self.serial += 1;
        let message = call.message(self.serial, body);
        self.send(&message)?;
        Ok(self.serial)
    }

    fn answer(&mut self, serial: u32) -> Result<Message, Failure> {
        loop {
            let message = self.receive()?;
            match message.kind {
                wire::METHOD_RETURN if message.reply_serial == serial => return Ok(message),
                wire::ERROR if message.reply_serial == serial => {
                    let name = message.error_name.rsplit('.').next().unwrap_or_default().to_owned();
                    let text = Reader::new(&message.body).string().unwrap_or_default().to_owned();
                    return Err(Failure::Answer { name, text });
                }
                _ => self.note(&message),
            }
        }
    }

    /// Keeps what a signal says about jobs.
    fn note(&mut self, message: &Message) {
        if message.kind != wire::SIGNAL
            || message.member != "JobRemoved"
            || message.interface != MANAGER
            || message.path != OBJECT
        {
            return;
        }
        let mut body = Reader::new(&message.body);
        if let (Some(_id), Some(job), Some(_unit), Some(result)) =
            (body.u32(), body.string(), body.string(), body.string())
        {
            self.ended.push((job.to_owned(), result.to_owned()));
        }
    }

    fn call(&mut self, call: &Call<'_>, body: Writer) -> Result<Message, Failure> {
        self.deadline = Instant::now() + CALL_TIME;
        let serial = self.post(call, body)?;
        self.answer(serial)
    }

    fn manager(&mut self, member: &str, signature: &str, body: Writer) -> Result<Message, Failure> {
        let destination = if self.direct { "" } else { SYSTEMD };
        self.call(&Call { destination, path: OBJECT, interface: MANAGER, member, signature }, body)
    }

    /// Calls a method that starts a job, and waits for the job's end: its result, `done` if all went well.
    fn job(&mut self, member: &str, signature: &str, body: Writer) -> Result<String, Failure> {
        let reply = self.manager(member, signature, body)?;
        let job = Reader::new(&reply.body).string().unwrap_or_default().to_owned();
        self.deadline = Instant::now() + JOB_TIME;
        loop {
            if let Some(index) = self.ended.iter().position(|(path, _)| *path == job) {
                return Ok(self.ended.swap_remove(index).1);
            }
            let message = self.receive()?;
            self.note(&message);
        }
    }

    /// Makes a unit and waits until it is there.
    pub(crate) fn start_transient_unit<'a>(
        &mut self,
        name: &str,
        properties: impl IntoIterator<Item = &'a Property>,
    ) -> Result<String, Failure> {
        let mut body = Writer::default();
        body.string(name);
        body.string("replace");
        body.properties(properties);
        body.no_structs();
        self.job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
    }

    /// Ends a unit and waits until it is gone.
    pub(crate) fn stop_unit(&mut self, name: &str) -> Result<String, Failure> {
        let mut body = Writer::default();
        body.string(name);
        body.string("replace");
        self.job("StopUnit", "ss", body)
    }

    /// Lets systemd forget a unit that has failed.
    pub(crate) fn reset_failed_unit(&mut self, name: &str) -> Result<(), Failure> {
        let mut body = Writer::default();
        body.string(name);
        self.manager("ResetFailedUnit", "s", body).map(drop)
    }

    /// Changes properties of a unit until the next boot.
    pub(crate) fn set_unit_properties<'a>(
        &mut self,
        name: &str,
        properties: impl IntoIterator<Item = &'a Property>,
    ) -> Result<(), Failure> {
        let mut body = Writer::default();
        body.string(name);
        body.bool(true);
        body.properties(properties);
        self.manager("SetUnitProperties", "sba(sv)", body).map(drop)
    }

    /// Asks for a property of the manager; [`Bus::property`] takes the answer, so that both can do something else
    /// meanwhile.
    pub(crate) fn ask_property(&mut self, name: &str) -> Result<u32, Failure> {
        let mut body = Writer::default();
        body.string(MANAGER);
        body.string(name);
        self.deadline = Instant::now() + CALL_TIME;
        let call = Call {
            destination: if self.direct { "" } else { SYSTEMD },
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
        };
        Ok(self.post(&call, body)?)
    }

    /// The answer to [`Bus::ask_property`].
    pub(crate) fn property(&mut self, serial: u32) -> Result<String, Failure> {
        let message = self.answer(serial)?;
        let text = Reader::new(&message.body).string_variant();
        text.map(str::to_owned).ok_or_else(|| io::Error::other("a property that is no string").into())
    }
}

/// The bus of the user's session, by runc's rules; where there is none, the user's manager itself (the second value).
fn connect_user() -> io::Result<(UnixStream, bool)> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    if let Some(addresses) = variable("DBUS_SESSION_BUS_ADDRESS") {
        return Ok((connect_first(&addresses)?, false));
    }
    let Some(dir) = variable("XDG_RUNTIME_DIR") else {
        return Err(io::Error::other("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"));
    };
    match UnixStream::connect(format!("{dir}/bus")) {
        Ok(stream) => Ok((stream, false)),
        // A user manager without a bus (no dbus-user-session).
        Err(error) => match UnixStream::connect(format!("{dir}/systemd/private")) {
            Ok(stream) => Ok((stream, true)),
            Err(_) => Err(error),
        },
    }
}

/// Addresses are separated by semicolons and tried in order (D-Bus specification, "Server Addresses").
fn connect_first(addresses: &str) -> io::Result<UnixStream> {
    let mut last = io::Error::other(format!("no usable address in {addresses:?}"));
    for address in addresses.split(';') {
        let Some(keys) = address.strip_prefix("unix:") else { continue };
        for (key, value) in keys.split(',').filter_map(|key| key.split_once('=')) {
            let value = unescape(value);
            let result = match key {
                "path" => UnixStream::connect(value),
                "abstract" => SocketAddr::from_abstract_name(value)
                    .and_then(|address| UnixStream::connect_addr(&address)),
                _ => continue,
            };
            match result {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// `%2F` and the like.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%').then(|| tail.get(..2)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::systemd::wire::tests::{error, job_removed, returns};
    use std::thread::JoinHandle;

    /// What a peer sends back for one call.
    pub(crate) type Reply = Box<dyn FnOnce(&Message) -> Vec<Vec<u8>> + Send>;

    /// A systemd that answers one call after the other.
    pub(crate) fn peer(answers: Vec<Reply>) -> (UnixStream, JoinHandle<Vec<Message>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut greeting = [0; 29];
            theirs.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
            theirs.write_all(b"DATA\r\nOK 1234\r\n").unwrap();
            let mut calls = Vec::new();
            for answer in answers {
                let mut fixed = [0; wire::FIXED];
                if theirs.read_exact(&mut fixed).is_err() {
                    break;
                }
                let mut bytes = vec![0; wire::length(&fixed).unwrap()];
                bytes[..wire::FIXED].copy_from_slice(&fixed);
                theirs.read_exact(&mut bytes[wire::FIXED..]).unwrap();
                let call = Message::parse(&bytes).unwrap();
                for message in answer(&call) {
                    let _ = theirs.write_all(&message);
                }
                calls.push(call);
            }
            calls
        });
        (ours, thread)
    }

    #[test]
    fn starting_waits_for_the_own_job() {
        let (stream, thread) = peer(vec![Box::new(|call: &Message| {
            vec![
                job_removed("/job/6", "other.scope", "failed"),
                returns("o", "/job/7", call.serial),
                job_removed("/job/8", "other.scope", "failed"),
                job_removed("/job/7", "a.scope", "done"),
            ]
        })]);
        let mut bus = Bus::over(stream, true).unwrap();
        let properties = [Property::new("Delegate", true)];
        assert_eq!(bus.start_transient_unit("a.scope", &properties).unwrap(), "done");
        let calls = thread.join().unwrap();
        assert_eq!(
            (calls[0].member.as_str(), calls[0].signature.as_str()),
            ("StartTransientUnit", "ssa(sv)a(sa(sv))")
        );
    }

    #[test]
    fn a_job_may_end_before_its_call_returns() {
        let (stream, thread) = peer(vec![Box::new(|call: &Message| {
            vec![job_removed("/job/7", "a.scope", "canceled"), returns("o", "/job/7", call.serial)]
        })]);
        assert_eq!(Bus::over(stream, true).unwrap().stop_unit("a.scope").unwrap(), "canceled");
        thread.join().unwrap();
    }

    #[test]
    fn errors_keep_their_name() {
        let (stream, thread) = peer(vec![Box::new(|call: &Message| {
            vec![error("org.freedesktop.systemd1.NoSuchUnit", "Unit a.scope not loaded.", call.serial)]
        })]);
        let failure = Bus::over(stream, true).unwrap().stop_unit("a.scope").unwrap_err();
        assert!(failure.is("NoSuchUnit"));
        assert_eq!(
            failure.during("stop a.scope").to_string(),
            "systemd: stop a.scope: Unit a.scope not loaded. (NoSuchUnit)"
        );
        thread.join().unwrap();
    }

    #[test]
    fn over_the_message_bus_it_introduces_itself_first() {
        let ok = |signature: &'static str| -> Reply {
            Box::new(move |call: &Message| vec![returns(signature, ":1.5", call.serial)])
        };
        let version: Reply = Box::new(|call: &Message| vec![returns("v", "257.9-1", call.serial)]);
        let (stream, thread) = peer(vec![ok("s"), ok(""), ok(""), version]);
        let mut bus = Bus::over(stream, false).unwrap();
        let serial = bus.ask_property("Version").unwrap();
        assert_eq!(bus.property(serial).unwrap(), "257.9-1");
        let members: Vec<String> = thread.join().unwrap().into_iter().map(|call| call.member).collect();
        assert_eq!(members, ["Hello", "AddMatch", "Subscribe", "Get"]);
    }

    #[test]
    fn a_peer_that_hangs_up_or_babbles_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Bus::over(ours, true).is_err());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        let Err(failure) = Bus::over(ours, true) else { panic!("accepted") };
        assert_eq!(
            failure.during("connect").to_string(),
            "systemd: connect: authentication refused: \"REJECTED EXTERNAL\""
        );
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[b'x'; 2000]).unwrap();
        assert!(Bus::over(ours, true).is_err());
    }

    #[test]
    fn a_silent_peer_is_given_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut bus = Bus {
            stream: ours,
            serial: 0,
            direct: true,
            ended: Vec::new(),
            deadline: Instant::now() + Duration::from_millis(20),
        };
        assert_eq!(bus.receive().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn addresses_are_tried_in_order() {
        assert_eq!(unescape("/run/user/1000%2fbus%zz"), "/run/user/1000/bus%zz");
        let dir = std::env::temp_dir().join(format!("cofferdam-bus-{}", std::process::id()));
        let _listener = std::os::unix::net::UnixListener::bind(&dir).unwrap();
        let addresses = format!("tcp:host=x;unix:path=/nonexistent;unix:path={},guid=1", dir.display());
        connect_first(&addresses).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(connect_first(&addresses).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
