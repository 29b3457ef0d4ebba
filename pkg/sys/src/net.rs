//! Sockets: the conversation, descriptors by SCM_RIGHTS, the loopback interface; and terminals, which are ioctls too.

use crate::{AsFd, Errno, Fd, Raw, Result, call::syscall};

/// A connected pair of unix stream sockets, close-on-exec.
pub fn socketpair() -> Result<(Fd, Fd)> {
    let mut pair = [0 as Raw; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two ints into `pair`.
    unsafe { syscall!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) }?;
    Ok((Fd::from_raw(pair[0]), Fd::from_raw(pair[1])))
}

/// `accept4(2)`, close-on-exec.
pub fn accept(listener: &impl AsFd) -> Result<Fd> {
    loop {
        // SAFETY: no address is asked for.
        match unsafe { syscall!(libc::SYS_accept4, listener.number(), 0, 0, libc::SOCK_CLOEXEC) } {
            Err(Errno::EINTR) => {}
            other => return other.map(|fd| Fd::from_raw(fd as Raw)),
        }
    }
}

/// How many descriptors one message carries at most (the kernel's own limit is 253).
pub const MOST_FDS: usize = 32;

/// The kernel's `struct cmsghdr` with descriptors behind it (include/linux/socket.h); the libc's differ.
#[repr(C)]
struct Rights {
    length: usize,
    level: i32,
    kind: i32,
    fds: [Raw; MOST_FDS],
}

/// `length` of no descriptors.
const HEAD: usize = core::mem::offset_of!(Rights, fds);

/// The kernel's `struct user_msghdr` (include/linux/socket.h).
#[repr(C)]
struct Message {
    name: *const u8,
    name_length: i32,
    parts: *const libc::iovec,
    part_count: usize,
    control: *const Rights,
    control_length: usize,
    flags: u32,
}

impl Message {
    fn new(part: &libc::iovec, control: *const Rights, control_length: usize) -> Message {
        let name = core::ptr::null();
        Message { name, name_length: 0, parts: part, part_count: 1, control, control_length, flags: 0 }
    }
}

/// Sends `bytes` and one descriptor over a unix socket.
pub fn send_fd(socket: &impl AsFd, bytes: &[u8], fd: &impl AsFd) -> Result<()> {
    send_fds(socket, bytes, &[fd.number()])
}

/// Sends `bytes` and some descriptors over a unix socket. E2BIG for more than [`MOST_FDS`].
pub fn send_fds(socket: &impl AsFd, bytes: &[u8], fds: &[Raw]) -> Result<()> {
    let length = HEAD + size_of_val(fds);
    let mut control = Rights { length, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fds: [-1; MOST_FDS] };
    control.fds.get_mut(..fds.len()).ok_or(Errno::E2BIG)?.copy_from_slice(fds);
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = Message::new(&part, &raw const control, length);
    // SAFETY: `message` and all that it points to live across the call, with their true lengths; sendmsg writes to none of it.
    unsafe { syscall!(libc::SYS_sendmsg, socket.number(), &raw const message, libc::MSG_NOSIGNAL) }.map(drop)
}

/// Receives some bytes and at most one descriptor (close-on-exec); how many bytes, and the descriptor if one came.
pub fn receive_fd(socket: &impl AsFd, bytes: &mut [u8]) -> Result<(usize, Option<Fd>)> {
    let mut fd = None;
    let length = receive_fds(socket, bytes, |received| fd = Some(received))?;
    Ok((length, fd))
}

/// Receives some bytes and at most [`MOST_FDS`] descriptors (close-on-exec); how many bytes.
pub fn receive_fds(socket: &impl AsFd, bytes: &mut [u8], mut take: impl FnMut(Fd)) -> Result<usize> {
    let mut control = Rights { length: 0, level: 0, kind: 0, fds: [-1; MOST_FDS] };
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = Message::new(&part, &raw mut control, size_of::<Rights>());
    let length = loop {
        // SAFETY: the kernel writes at most the lengths given into `bytes` and `control`, which live across the call.
        match unsafe {
            syscall!(libc::SYS_recvmsg, socket.number(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
        } {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.control_length >= HEAD && (control.level, control.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
    {
        let count = control.length.saturating_sub(HEAD) / size_of::<Raw>();
        control.fds.iter().take(count).for_each(|fd| take(Fd::from_raw(*fd)));
    }
    Ok(length)
}

/// Brings the interface `lo` of the current network namespace up.
pub fn bring_up_loopback() -> Result<()> {
    // Any socket takes the device ioctls; unix ones are there without IPv4 too.
    // SAFETY: integers only.
    let socket =
        unsafe { syscall!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }?;
    let socket = Fd::from_raw(socket as Raw);
    // SAFETY: plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the kernel reads one ifreq.
    unsafe { syscall!(libc::SYS_ioctl, socket.raw(), libc::SIOCSIFFLAGS, &raw const request) }.map(drop)
}

/// The peer end of a pty's master (TIOCGPTPEER, Linux 4.13): no path is walked.
pub fn pty_peer(master: &impl AsFd) -> Result<Fd> {
    const TIOCGPTPEER: u32 = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_ioctl, master.number(), TIOCGPTPEER, flags) }
        .map(|fd| Fd::from_raw(fd as Raw))
}

/// Unlocks a pty (TIOCSPTLCK) and returns its number (TIOCGPTN).
pub fn unlock_pty(master: &impl AsFd) -> Result<u32> {
    let unlock = 0i32;
    let mut number = 0u32;
    // SAFETY: the kernel reads one int.
    unsafe { syscall!(libc::SYS_ioctl, master.number(), libc::TIOCSPTLCK, &raw const unlock) }?;
    // SAFETY: the kernel writes one unsigned int.
    unsafe { syscall!(libc::SYS_ioctl, master.number(), libc::TIOCGPTN, &raw mut number) }?;
    Ok(number)
}

/// Makes a terminal the controlling one of this session (TIOCSCTTY).
pub fn set_controlling_terminal(terminal: &impl AsFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_ioctl, terminal.number(), libc::TIOCSCTTY, 0) }.map(drop)
}

/// Sets a terminal's size (TIOCSWINSZ).
pub fn set_window_size(terminal: &impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = [rows, columns, 0, 0];
    // SAFETY: the kernel reads one winsize, which is four u16.
    unsafe { syscall!(libc::SYS_ioctl, terminal.number(), libc::TIOCSWINSZ, size.as_ptr()) }.map(drop)
}

/// A terminal's size (TIOCGWINSZ): rows and columns.
pub fn window_size(terminal: &impl AsFd) -> Result<(u16, u16)> {
    let mut size = [0u16; 4];
    // SAFETY: the kernel writes one winsize, which is four u16.
    unsafe { syscall!(libc::SYS_ioctl, terminal.number(), libc::TIOCGWINSZ, size.as_mut_ptr()) }?;
    Ok((size[0], size[1]))
}

/// Stops a terminal from writing a carriage return in front of each line feed (TCGETS, TCSETS: ONLCR off).
pub fn keep_line_ends(terminal: &impl AsFd) -> Result<()> {
    let mut settings = Termios::default();
    // SAFETY: the kernel writes one struct termios, which `Termios` is.
    unsafe { syscall!(libc::SYS_ioctl, terminal.number(), libc::TCGETS, &raw mut settings) }?;
    settings.output &= !libc::ONLCR;
    // SAFETY: the kernel reads one struct termios.
    unsafe { syscall!(libc::SYS_ioctl, terminal.number(), libc::TCSETS, &raw const settings) }.map(drop)
}

/// `struct termios` of the kernel (asm-generic/termbits.h), which is shorter than libc's.
#[repr(C)]
#[derive(Default)]
struct Termios {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    line: u8,
    characters: [u8; 19],
}

/// The kind of namespace that a file is, as a `CLONE_NEW*` bit (NS_GET_NSTYPE, Linux 4.11); ENOTTY for other files.
pub fn namespace_type(file: &impl AsFd) -> Result<u32> {
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_ioctl, file.number(), NS_GET_NSTYPE) }.map(|kind| kind as u32)
}

/// The uid of a unix socket's peer (SO_PEERCRED).
pub fn peer_uid(socket: &impl AsFd) -> Result<u32> {
    let mut credentials = [0u32; 3];
    let mut length = size_of_val(&credentials) as u32;
    let option = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: the kernel writes one ucred, which is three words, and its length.
    unsafe {
        syscall!(
            libc::SYS_getsockopt,
            socket.number(),
            option.0,
            option.1,
            credentials.as_mut_ptr(),
            &raw mut length
        )
    }?;
    Ok(credentials[1])
}

/// Sends all of `bytes` over a socket without SIGPIPE.
pub fn send(socket: &impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let flags = libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads `bytes.len()` bytes; no address is given.
        match unsafe { syscall!(libc::SYS_sendto, socket.number(), bytes.as_ptr(), bytes.len(), flags, 0, 0) }
        {
            Err(Errno::EINTR) => {}
            other => bytes = &bytes[other?..],
        }
    }
    Ok(())
}

/// Sends as much as there is room for right now; EAGAIN when there is none.
pub fn send_some(socket: &impl AsFd, bytes: &[u8]) -> Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads `bytes.len()` bytes; no address is given.
    unsafe { syscall!(libc::SYS_sendto, socket.number(), bytes.as_ptr(), bytes.len(), flags, 0, 0) }
}

/// `shutdown(SHUT_WR)`: the peer reads the end of the stream.
pub fn shut_down_writing(socket: &impl AsFd) -> Result<()> {
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_shutdown, socket.number(), libc::SHUT_WR) }.map(drop)
}

/// A netlink socket that speaks rtnetlink in the current network namespace (`NETLINK_ROUTE`), close-on-exec.
pub fn rtnetlink() -> Result<Fd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: integers only.
    unsafe { syscall!(libc::SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) }
        .map(|fd| Fd::from_raw(fd as Raw))
}
