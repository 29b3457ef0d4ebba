//! containerd's connections: who may connect, frames in, answers out.

use crate::{
    frame::{self, Decoder, Frame, Header},
    poll::{Poll, Source},
    status::Status,
};
use cofferdam_proto::{Message, ttrpc};
use cofferdam_sys::net;
use nix::sys::epoll::EpollFlags;
use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
};

/// Answers that a peer has not read yet, beyond which its further calls have to wait.
const OUTPUT_MAX: usize = 8 << 20;

/// A call that has to be answered, perhaps later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The connection that it came by.
    pub connection: u32,
    stream: u32,
}

/// A call, and what it wants.
pub struct Request {
    /// Whom to answer.
    pub call: Call,
    /// Service, method and payload.
    pub request: ttrpc::Request,
}

struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    output: Vec<u8>,
    last_stream: u32,
    watched: EpollFlags,
}

/// What came of looking for new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// There was one.
    pub any: bool,
    /// There is one that cannot be had now: whoever asked is to call [`Server::listen_again`] after a pause.
    pub starved: bool,
}

/// The listener and its connections.
pub struct Server {
    listener: UnixListener,
    connections: HashMap<u32, Connection>,
    /// Something is missing that a connection needs, mostly a descriptor.
    starved: bool,
}

impl Server {
    /// Serves on `listener`.
    pub fn new(listener: UnixListener, poll: &Poll) -> std::io::Result<Server> {
        listener.set_nonblocking(true)?;
        poll.add(&listener, Source::Listener, EpollFlags::EPOLLIN)?;
        Ok(Server { listener, connections: HashMap::new(), starved: false })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether every answer is on its way.
    pub fn is_flushed(&self) -> bool {
        self.connections.values().all(|connection| connection.output.is_empty())
    }

    /// Takes in new connections: of our own user only, whatever the socket's mode has become.
    pub fn accept(&mut self, poll: &mut Poll) -> Accepted {
        let mut accepted = Accepted::default();
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    let uid = net::peer_uid(&socket.as_fd());
                    if uid != Ok(nix::unistd::geteuid().as_raw()) {
                        crate::warn!("refused a connection of uid {uid:?}");
                        continue;
                    }
                    let number = poll.number();
                    let watched = EpollFlags::EPOLLIN;
                    let watches = socket.set_nonblocking(true).is_ok()
                        && poll.add(&socket, Source::Connection(number), watched).is_ok();
                    if watches {
                        let connection = Connection {
                            socket,
                            decoder: Decoder::default(),
                            output: Vec::new(),
                            last_stream: 0,
                            watched,
                        };
                        self.connections.insert(number, connection);
                        accepted.any = true;
                        self.starved = false;
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return accepted,
                Err(error) => {
                    // Who connects waits in the listener's queue, which would call for us all the time.
                    accepted.starved = poll
                        .modify(&self.listener, Source::Listener, EpollFlags::empty())
                        .inspect_err(|errno| crate::error!("looking away from the listener: {errno}"))
                        .is_ok();
                    if !std::mem::replace(&mut self.starved, true) {
                        crate::error!("accept: {error}; trying again until it can be done");
                    }
                    return accepted;
                }
            }
        }
    }

    /// Looks at the listener again.
    pub fn listen_again(&self, poll: &Poll) {
        if let Err(errno) = poll.modify(&self.listener, Source::Listener, EpollFlags::EPOLLIN) {
            crate::error!("listening again: {errno}");
        }
    }

    /// Reads what a connection has, at most a few buffers. Whether it is gone now.
    pub fn ready(&mut self, poll: &Poll, number: u32, flags: EpollFlags) -> (Vec<Request>, bool) {
        let mut requests = Vec::new();
        let Some(connection) = self.connections.get_mut(&number) else { return (requests, false) };
        let mut gone = false;
        if flags.contains(EpollFlags::EPOLLOUT) {
            gone |= connection.flush(poll, number).is_err();
        }
        let mut buffer = [0; 16 * 1024];
        for _ in 0..8 {
            if gone || connection.output.len() > OUTPUT_MAX {
                break;
            }
            match connection.socket.read(&mut buffer) {
                Ok(0) => gone = true,
                Ok(n) => {
                    let mut frames = Vec::new();
                    connection.decoder.take(&buffer[..n], |frame| frames.push(frame));
                    for frame in frames {
                        match connection.understand(number, frame) {
                            Ok(Some(request)) => requests.push(request),
                            Ok(None) => {}
                            Err((header, status)) => connection.answer(header.stream, Err(status)),
                        }
                    }
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => gone = true,
            }
        }
        gone |= !gone && connection.flush(poll, number).is_err();
        if gone && let Some(connection) = self.connections.remove(&number) {
            poll.remove(&connection.socket);
        }
        (requests, gone)
    }

    /// Answers a call; whose connection is gone nobody waits for it.
    pub fn answer(&mut self, poll: &Poll, call: Call, result: Result<Vec<u8>, Status>) {
        let Some(connection) = self.connections.get_mut(&call.connection) else { return };
        connection.answer(call.stream, result);
        // An error shows again when the connection is read, which then ends it.
        let _ = connection.flush(poll, call.connection);
    }
}

impl Connection {
    /// A frame as a request, or as the error that it is answered with (those of Go's server).
    fn understand(&mut self, number: u32, frame: Frame) -> Result<Option<Request>, (Header, Status)> {
        let (header, payload) = match frame {
            Frame::Whole(header, payload) => (header, payload),
            Frame::TooLong(header) => {
                let (length, max) = (header.length, frame::PAYLOAD_MAX);
                let text = format!("message length {length} exceed maximum message size of {max}");
                return Err((header, Status::resource_exhausted(text)));
            }
        };
        if header.stream % 2 != 1 {
            return Err((
                header,
                Status::invalid_argument("StreamID must be odd for client initiated streams"),
            ));
        }
        match header.kind {
            frame::REQUEST => {}
            frame::DATA => return Err((header, Status::invalid_argument("StreamID is no longer active"))),
            // Whatever a later version of the protocol may mean by it.
            _ => return Ok(None),
        }
        if header.stream <= self.last_stream {
            return Err((header, Status::invalid_argument("StreamID cannot be re-used and must increment")));
        }
        self.last_stream = header.stream;
        match ttrpc::Request::parse_from_bytes(&payload) {
            Ok(request) => {
                Ok(Some(Request { call: Call { connection: number, stream: header.stream }, request }))
            }
            Err(error) => {
                Err((header, Status::invalid_argument(format!("unmarshal request error: {error}"))))
            }
        }
    }

    fn answer(&mut self, stream: u32, result: Result<Vec<u8>, Status>) {
        let response = match result {
            // Go's client takes a missing status for OK, but its server always sends one.
            Ok(payload) => ttrpc::Response {
                payload,
                status: Some(ttrpc::Status::default()).into(),
                ..Default::default()
            },
            Err(status) => ttrpc::Response { status: Some(status.into()).into(), ..Default::default() },
        };
        let payload = response.write_to_bytes().unwrap_or_default();
        let payload = if payload.len() > frame::PAYLOAD_MAX {
            let status = Status::resource_exhausted(format!("answer of {} bytes is too long", payload.len()));
            let response = ttrpc::Response { status: Some(status.into()).into(), ..Default::default() };
            response.write_to_bytes().unwrap_or_default()
        } else {
            payload
        };
        self.output.extend_from_slice(&frame::encode(stream, frame::RESPONSE, &payload));
    }

    fn flush(&mut self, poll: &Poll, number: u32) -> std::io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut wanted = EpollFlags::empty();
        if self.output.is_empty() {
            self.output = Vec::new();
        } else {
            wanted |= EpollFlags::EPOLLOUT;
        }
        if self.output.len() <= OUTPUT_MAX {
            wanted |= EpollFlags::EPOLLIN;
        }
        if wanted != self.watched {
            poll.modify(&self.socket, Source::Connection(number), wanted)?;
            self.watched = wanted;
        }
        Ok(())
    }
}
