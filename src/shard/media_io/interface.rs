//! Which network interface has an address: groups of IPv6 are joined by its index (RFC 3493 §5.2).

use std::{net::SocketAddrV6, ptr};

/// Index of the interface that has `ours`. `None` when none of them has it.
pub fn index_of(ours: &SocketAddrV6) -> Option<u32> {
    if ours.scope_id() != 0 {
        return Some(ours.scope_id());
    }
    let mut list = ptr::null_mut();
    // SAFETY: a place for a pointer to the list, which is ours to free when the call succeeds.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return None;
    }
    let mut index = None;
    let mut next = list.cast_const();
    while !next.is_null() && index.is_none() {
        // SAFETY: an entry of the list, which lives until it is freed below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() {
            continue;
        }
        // SAFETY: the list's addresses are as long as their family says; the family lies within all of them.
        let address = unsafe {
            if libc::c_int::from((*entry.ifa_addr).sa_family) != libc::AF_INET6 {
                continue;
            }
            entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned()
        };
        if address.sin6_addr.s6_addr == ours.ip().octets() {
            // SAFETY: the name is a string that ends with a zero, as the list holds it.
            let found = unsafe { libc::if_nametoindex(entry.ifa_name) };
            index = (found != 0).then_some(found);
        }
    }
    // SAFETY: got from `getifaddrs`, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_by_its_address_and_strangers_are_not() {
        let on = |ip: &str, scope| index_of(&SocketAddrV6::new(ip.parse().unwrap(), 0, 0, scope));
        assert_eq!(on("2001:db8::77", 0), None);
        assert_eq!(on("fe80::1", 7), Some(7), "a link-local address names its interface");
        if std::net::UdpSocket::bind("[::1]:0").is_ok() {
            let found = on("::1", 0).unwrap();
            let name = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
            assert_eq!(found.to_string(), name.trim());
        }
    }
}
