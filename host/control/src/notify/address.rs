//! Which addresses a tenant's webhook may reach: public ones, and what the operator allows.
//!
//! Asked with every address that a connection is about to be made to, so that a name which
//! changes its mind between a check and a use gains nothing. Invariant: what is not known
//! to be public is private; IPv6 is public only inside `2000::/3`, less its special parts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 blocks that are not globally reachable unicast (IANA special-purpose registry).
const CLOSED_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Carrier-grade NAT.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local, where clouds keep their metadata.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // 6to4 relays.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, with the broadcast address.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// Global unicast IPv6.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks inside [`GLOBAL_V6`] that are not, or that carry an IPv4 address.
const CLOSED_V6: [(Ipv6Addr, u8); 4] = [
    // Protocol assignments, with Teredo and ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Networks that the operator opens to webhooks beside the public ones, and without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNetworks(Vec<IpNet>);

impl AllowedNetworks {
    /// These networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the operator opened the address by name.
    pub(super) fn opens(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether a webhook may reach the address over TLS.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        self.opens(address) || is_public(address)
    }
}

/// Whether the address is a globally reachable unicast one.
fn is_public(address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is 127.0.0.1 to the system.
    match address.to_canonical() {
        IpAddr::V4(address) => !CLOSED_V4.into_iter().any(|block| in_v4(address, block)),
        IpAddr::V6(address) => {
            in_v6(address, GLOBAL_V6) && !CLOSED_V6.into_iter().any(|block| in_v6(address, block))
        }
    }
}

fn in_v4(address: Ipv4Addr, (base, length): (Ipv4Addr, u8)) -> bool {
    Ipv4Net::new(base, length).is_ok_and(|network| network.contains(&address))
}

fn in_v6(address: Ipv6Addr, (base, length): (Ipv6Addr, u8)) -> bool {
    Ipv6Net::new(base, length).is_ok_and(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allowed: &AllowedNetworks, address: &str) -> bool {
        allowed.permits(address.parse().expect("an address"))
    }

    #[test]
    fn only_public_addresses_are_reached() {
        let none = AllowedNetworks::default();
        for closed in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "4000::1",
        ] {
            assert!(!permits(&none, closed), "{closed}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "3ffe::1",
        ] {
            assert!(permits(&none, public), "{public}");
        }
    }

    #[test]
    fn the_operator_opens_networks_in_either_notation() {
        let networks = ["127.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let allowed = AllowedNetworks::new(networks.to_vec());
        for open in ["127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "8.8.8.8"] {
            assert!(permits(&allowed, open), "{open}");
        }
        for closed in ["10.0.0.1", "::1", "fc00::1"] {
            assert!(!permits(&allowed, closed), "{closed}");
        }
        assert!(!allowed.opens("8.8.8.8".parse().expect("an address")));
    }
}
