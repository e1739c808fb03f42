//! Which machines may be asked.
//!
//! An address that the network agreed on is others' word: it must not make this validator ask the
//! machines of its own networks, which trust it. Names are resolved once, and what is connected to is
//! what was looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Which machines may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Those that everybody can reach.
    #[default]
    Public,
    /// Those of this machine's own networks too: the operator named the address.
    Anywhere,
}

impl Reach {
    /// Whether an address may be asked.
    #[must_use]
    pub fn includes(self, address: IpAddr) -> bool {
        self == Self::Anywhere
            || match address {
                IpAddr::V4(a) => public_v4(a),
                IpAddr::V6(a) => public_v6(a),
            }
    }
}

/// IANA's registry of special addresses, less what is routed.
fn public_v4(a: Ipv4Addr) -> bool {
    let [first, second, third, _] = a.octets();
    let special = a.is_loopback()
        || a.is_private()
        || a.is_link_local()
        || a.is_documentation()
        || a.is_multicast()
        || matches!((first, second, third), (0 | 240.., ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _));
    !special
}

/// Global unicast is 2000::/3. Addresses that carry another one of IPv4 count as that one.
fn public_v6(a: Ipv6Addr) -> bool {
    let s = a.segments();
    let carried = |high: u16, low: u16| public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        [0x2002, high, low, ..] => carried(high, low),
        // Teredo and other tunnels, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

impl Resolver for Reach {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        let mut allowed = self.empty();
        found.iter().filter(|a| self.includes(a.ip())).for_each(|a| allowed.push(*a));
        if allowed.is_empty() {
            let why = "an address of this machine's own networks, which only the operator may name";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)));
        }
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_what_everybody_can_reach_is_public() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.8",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.1.1",
            "64:ff9b::7f00:1",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!Reach::Public.includes(address.parse().unwrap()), "{address}");
            assert!(Reach::Anywhere.includes(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(Reach::Public.includes(address.parse().unwrap()), "{address}");
        }
    }
}
