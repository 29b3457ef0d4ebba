//! `/linux/netDevices`: network devices of the host are moved into the container's network namespace, under a new name if
//! config.json has one, with their permanent global addresses, and brought up there. By rtnetlink(7), as runc 1.4 does it.
//!
//! A device belongs to one namespace. When the container's ends, the kernel gives a physical device back to the first
//! namespace and destroys a virtual one.

use super::aside::aside;
use super::slots;
use crate::error::Error;
use cofferdam_plan::NetworkDevice;
use cofferdam_step::Namespace;
use cofferdam_sys::{AsFd as _, Errno, Fd, fs, net, process};
use nix::libc;

/// Moves the devices into the network namespace that has this file.
///
/// # Errors
/// When a device is not there, and the kernel's own, with the device's name. Then all are where they were, and as they were.
pub(super) fn move_all(devices: &[NetworkDevice], namespace: &str) -> Result<(), Error> {
    let target = slots::namespace(Namespace::Network, namespace)?;
    let mut here = Route::new(net::rtnetlink().map_err(|errno| Error::call("open a netlink socket", errno))?);
    let there = Route::new(socket_in(&target)?);
    let links = devices.iter().map(|device| here.find(&device.name)).collect::<Result<Vec<Link>, _>>()?;
    let mut removal = Removal { here, there, target, gone: Vec::new() };
    let moved = devices.iter().zip(links).try_for_each(|(device, link)| removal.take(device, link));
    moved.inspect_err(|_| removal.turn_back())
}

/// Devices on their way.
struct Removal<'a> {
    here: Route,
    there: Route,
    target: Fd,
    /// Those that have been taken down.
    gone: Vec<Gone<'a>>,
}

/// A device that has left, or is about to.
struct Gone<'a> {
    device: &'a NetworkDevice,
    was: Link,
    addresses: Vec<Address>,
    /// Its index in the other namespace, once it is there.
    there: Option<u32>,
}

impl<'a> Removal<'a> {
    fn take(&mut self, device: &'a NetworkDevice, was: Link) -> Result<(), Error> {
        let failed = |what: &str| {
            let text = format!("{what} network device {}", device.name);
            move |errno: Errno| Error::call(text, errno)
        };
        // First: a device that is taken down loses its IPv6 addresses.
        let addresses = self.here.addresses(was.index).map_err(failed("list the addresses of"))?;
        self.gone.push(Gone { device, was, addresses: addresses.clone(), there: None });
        self.here.set_up(was.index, false).map_err(failed("take down"))?;
        let moved = self.here.move_to(was.index, &device.new_name, &self.target);
        // Where only the new name was refused, it has moved all the same, with its old one (`do_setlink` in net/core/rtnetlink.c).
        let name = if moved.is_err() { &device.name } else { &device.new_name };
        let found = match moved.is_err() && self.here.find(&device.name).is_ok() {
            true => None,
            false => Some(self.there.find(name)?.index),
        };
        if let Some(gone) = self.gone.last_mut() {
            gone.there = found;
        }
        moved.map_err(failed("move"))?;
        let Some(index) = found else { return Ok(()) };
        for address in addresses {
            self.there.add(&address, index).map_err(failed("give its address back to"))?;
        }
        self.there.set_up(index, true).map_err(failed("bring up"))
    }

    /// Fetches the devices back: the namespace may be a new one, which would take them along when it ends. The error that is the reason is
    /// what there is to say.
    fn turn_back(&mut self) {
        let Ok(own) = slots::namespace(Namespace::Network, "/proc/thread-self/ns/net") else { return };
        for Gone { device, was, addresses, there } in std::mem::take(&mut self.gone).into_iter().rev() {
            if let Some(index) = there {
                let _ = self.there.set_up(index, false);
                let _ = self.there.move_to(index, &device.name, &own);
            }
            let Ok(Link { index, .. }) = self.here.find(&device.name) else { continue };
            let _ = self.here.set_up(index, was.up);
            for address in &addresses {
                // Those that have outlived it all are there (EEXIST).
                let _ = self.here.add(address, index);
            }
        }
    }
}

/// A socket of another namespace, where somebody is for a moment.
fn socket_in(namespace: &Fd) -> Result<Fd, Error> {
    let opened = aside(Namespace::Network, || {
        process::setns(namespace, Namespace::Network.clone_flag())?;
        net::rtnetlink()
    });
    opened.unwrap_or_else(Err).map_err(|errno| Error::call("enter the container's network namespace", errno))
}

/// An address as the kernel tells it, without the attributes that name its device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// A device of a network namespace.
#[derive(Clone, Copy, Debug)]
struct Link {
    index: u32,
    up: bool,
}

/// A conversation with rtnetlink.
struct Route {
    socket: Fd,
    sequence: u32,
}

/// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// What somebody has asked for when the address was made: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.
const IFA_F_ASKED_FOR: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const UNIVERSE: u8 = 0;
const HEADER: usize = 16;
/// Of `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_PART: usize = 16;
const ADDRESS_PART: usize = 8;

impl Route {
    fn new(socket: Fd) -> Route {
        Route { socket, sequence: 0 }
    }

    /// A device by its name; an error that names it when there is none.
    fn find(&mut self, name: &str) -> Result<Link, Error> {
        let mut body = link_part(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        let mut found = Link { index: 0, up: false };
        let asked = self.ask(libc::RTM_GETLINK, 0, &body, |kind, part| {
            let word = |at: usize| part.get(at..at + 4).and_then(|word| word.try_into().ok());
            if kind == libc::RTM_NEWLINK
                && let (Some(index), Some(flags)) = (word(4), word(8))
            {
                let up = u32::from_ne_bytes(flags) & libc::IFF_UP as u32 != 0;
                found = Link { index: u32::from_ne_bytes(index), up };
            }
        });
        match asked {
            Ok(()) => Ok(found),
            Err(errno) => Err(Error::call(format!("find network device {name}"), errno)),
        }
    }

    fn set_up(&mut self, index: u32, up: bool) -> Result<(), Errno> {
        let up_flag = libc::IFF_UP as u32;
        let body = link_part(index, if up { up_flag } else { 0 }, up_flag);
        self.ask(libc::RTM_NEWLINK, libc::NLM_F_ACK, &body, |_, _| {})
    }

    /// In one request, so that the name need not be free in both namespaces.
    fn move_to(&mut self, index: u32, name: &str, namespace: &Fd) -> Result<(), Errno> {
        let mut body = link_part(index, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.number().to_ne_bytes());
        self.ask(libc::RTM_NEWLINK, libc::NLM_F_ACK, &body, |_, _| {})
    }

    /// The permanent addresses of global scope: others come from the namespace that is left, or are made anew.
    fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut found = Vec::new();
        self.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS_PART], |kind, part| {
            if kind == libc::RTM_NEWADDR {
                found.extend(lasting_address(part, index));
            }
        })?;
        Ok(found)
    }

    fn add(&mut self, address: &Address, index: u32) -> Result<(), Errno> {
        let mut body = vec![address.family, address.prefix, 0, UNIVERSE];
        body.extend(index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            attribute(&mut body, *kind, value);
        }
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.ask(libc::RTM_NEWADDR, flags, &body, |_, _| {})
    }

    /// Sends a request and hands every message of the answer to `each`: its type, and what follows its header.
    fn ask(
        &mut self,
        kind: u16,
        flags: i32,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Errno> {
        self.sequence += 1;
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        net::send(&self.socket, &message)?;
        let several = flags & libc::NLM_F_DUMP as u16 == libc::NLM_F_DUMP as u16;
        // A datagram of an answer is no longer than this (NLMSG_GOODSIZE, and 32 kB for dumps).
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = fs::read(&self.socket, &mut buffer)?;
            let mut rest = &buffer[..length];
            while let Some((kind, sequence, part, next)) = next_message(rest) {
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledged(part),
                    _ => each(kind, part),
                }
                if !several && i32::from(flags) & libc::NLM_F_ACK == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The first message: its type, its sequence number, what follows its header, and the messages behind it.
fn next_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let part = bytes.get(HEADER..length)?;
    Some((kind, sequence, part, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// NLMSG_ERROR holds a negative errno; 0 is an acknowledgement.
fn acknowledged(part: &[u8]) -> Result<(), Errno> {
    let number =
        part.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-libc::EPROTO, i32::from_ne_bytes);
    if number == 0 { Ok(()) } else { Err(Errno(-number)) }
}

/// The address in an RTM_NEWADDR message, if it is this device's, permanent and of global scope.
fn lasting_address(part: &[u8], index: u32) -> Option<Address> {
    let (head, mut rest) = part.split_at_checked(ADDRESS_PART)?;
    let &[family, prefix, flags, scope, ..] = head else { return None };
    let mut flags = u32::from(flags);
    let mut attributes = Vec::new();
    while let Some((kind, value, next)) = next_attribute(rest) {
        rest = next;
        match kind {
            IFA_FLAGS => flags = u32::from_ne_bytes(value.try_into().ok()?),
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => attributes.push((kind, value.to_vec())),
            _ => {}
        }
    }
    let ours = u32::from_ne_bytes(head[4..].try_into().ok()?) == index;
    if !ours || scope != UNIVERSE || flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    attributes.push((IFA_FLAGS, (flags & IFA_F_ASKED_FOR).to_ne_bytes().to_vec()));
    Some(Address { family, prefix, attributes })
}

fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    Some((kind, bytes.get(4..length)?, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len();
    body.extend((length as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len() + aligned(length) - length, 0);
}

/// `struct ifinfomsg`
fn link_part(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut part = vec![0; 4];
    part.extend([index, flags, change].iter().flat_map(|word| word.to_ne_bytes()));
    debug_assert_eq!(part.len(), LINK_PART);
    part
}

fn with_nul(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_and_another_is_not() {
        let mut route = Route::new(net::rtnetlink().unwrap());
        assert_eq!(route.find("lo").unwrap().index, 1);
        let error = route.find("no-such-dev").unwrap_err();
        assert_eq!(crate::error::message(&error), "find network device no-such-dev: no such device");
        // Host scope does not leave the machine.
        assert_eq!(route.addresses(1).unwrap(), []);
    }

    #[test]
    fn only_lasting_global_addresses_of_the_device_are_taken_along() {
        let message = |scope: u8, flags: u32, index: u32| {
            let mut part = vec![2, 24, 0, scope];
            part.extend(index.to_ne_bytes());
            attribute(&mut part, IFA_LOCAL, &[10, 0, 0, 1]);
            attribute(&mut part, 3, b"eth0\0");
            attribute(&mut part, IFA_FLAGS, &flags.to_ne_bytes());
            part
        };
        let taken = lasting_address(&message(0, 0x280, 7), 7).unwrap();
        assert_eq!((taken.family, taken.prefix), (2, 24));
        let flags = 0x200u32.to_ne_bytes().to_vec();
        assert_eq!(taken.attributes, [(IFA_LOCAL, vec![10, 0, 0, 1]), (IFA_FLAGS, flags)]);
        assert_eq!(lasting_address(&message(0, 0x80, 8), 7), None);
        assert_eq!(lasting_address(&message(253, 0x80, 7), 7), None);
        assert_eq!(lasting_address(&message(0, 0, 7), 7), None);
        assert_eq!(lasting_address(&[2, 24], 7), None);
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        assert!(next_message(&[20, 0, 0]).is_none());
        assert!(next_message(&[200, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(next_message(&[3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(next_attribute(&[2, 0, 1, 0]).is_none());
    }
}
