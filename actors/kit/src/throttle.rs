//! How often a password may be guessed. Only a failure with a nonce that was made for the very address counts, so a forged
//! source address costs its owner nothing.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Failures in a minute.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one user at one address; more have to wait.
    pub tries: u32,
    /// Of one user at addresses where it has not succeeded, and of one address with users that have not succeeded there. Users
    /// that have succeeded at their address are not concerned.
    pub strangers: u32,
}

const WINDOW: Duration = Duration::from_secs(60);
/// How long an address is known as a user's after its last success.
const KNOWN: Duration = Duration::from_secs(24 * 3600);
/// Entries of each table.
const REMEMBERED: usize = 50_000;

/// Counts with the beginning of their window, bounded.
#[derive(Debug)]
struct Counts<K>(HashMap<K, (u32, Instant)>);

impl<K: Hash + Eq + Clone> Counts<K> {
    fn count(&self, key: &K, now: Instant) -> u32 {
        self.0.get(key).filter(|(_, since)| now < *since + WINDOW).map_or(0, |(count, _)| *count)
    }

    /// Time until the window of a count is over.
    fn left(&self, key: &K, now: Instant) -> Duration {
        self.0.get(key).map_or(Duration::ZERO, |(_, since)| (*since + WINDOW).saturating_duration_since(now))
    }

    fn add(&mut self, key: K, now: Instant) {
        make_room(&mut self.0, |(_, since)| *since + WINDOW > now, |(_, since)| *since);
        let entry = self.0.entry(key).or_insert((0, now));
        if entry.1 + WINDOW <= now {
            *entry = (0, now);
        }
        entry.0 = entry.0.saturating_add(1);
    }
}

/// Keeps a table below its bound: entries that are over go first, then the older half.
fn make_room<K: Hash + Eq + Clone, V>(
    table: &mut HashMap<K, V>,
    lives: impl Fn(&V) -> bool,
    age: impl Fn(&V) -> Instant,
) {
    if table.len() < REMEMBERED {
        return;
    }
    table.retain(|_, v| lives(v));
    if table.len() >= REMEMBERED / 2 {
        let mut ages: Vec<Instant> = table.values().map(&age).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        table.retain(|_, v| age(v) > median);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    limits: Limits,
    pairs: Counts<(IpAddr, String)>,
    users: Counts<String>,
    addresses: Counts<IpAddr>,
    /// When a user last succeeded at an address.
    known: HashMap<(IpAddr, String), Instant>,
}

/// The part of an address that its holder cannot choose freely: of IPv6, a /64.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let s = ip.segments();
            Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0).into()
        }
    }
}

impl Throttle {
    pub fn new(limits: Limits) -> Self {
        let (pairs, users, addresses) =
            (Counts(HashMap::new()), Counts(HashMap::new()), Counts(HashMap::new()));
        Self { limits, pairs, users, addresses, known: HashMap::new() }
    }

    /// Whether a password of this user (name and realm) may be tried from this address; how long to wait otherwise.
    pub fn may_try(&self, ip: IpAddr, user: &str, now: Instant) -> Result<(), Duration> {
        let ip = network(ip);
        let pair = (ip, user.to_owned());
        let Limits { tries, strangers } = self.limits;
        if self.pairs.count(&pair, now) >= tries {
            return Err(self.pairs.left(&pair, now));
        }
        let known = self.known.get(&pair).is_some_and(|last| now < *last + KNOWN);
        let left = [
            (self.users.count(&pair.1, now) >= strangers).then(|| self.users.left(&pair.1, now)),
            (self.addresses.count(&ip, now) >= strangers).then(|| self.addresses.left(&ip, now)),
        ];
        match left.into_iter().flatten().max() {
            Some(left) if !known => Err(left),
            _ => Ok(()),
        }
    }

    pub fn failed(&mut self, ip: IpAddr, user: &str, now: Instant) {
        let ip = network(ip);
        let pair = (ip, user.to_owned());
        self.pairs.add(pair.clone(), now);
        if !self.known.contains_key(&pair) {
            self.users.add(pair.1, now);
            self.addresses.add(ip, now);
        }
    }

    pub fn succeeded(&mut self, ip: IpAddr, user: &str, now: Instant) {
        make_room(&mut self.known, |last| *last + KNOWN > now, |last| *last);
        let pair = (network(ip), user.to_owned());
        self.pairs.0.remove(&pair);
        self.known.insert(pair, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { tries: 20, strangers: 200 };

    fn ip(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn one_phone_with_a_wrong_password_waits_and_its_neighbours_do_not() {
        let (mut t, now) = (Throttle::new(LIMITS), Instant::now());
        for _ in 0..LIMITS.tries {
            assert!(t.may_try(ip(1), "100@d", now).is_ok());
            t.failed(ip(1), "100@d", now);
        }
        assert!(t.may_try(ip(1), "100@d", now).is_err());
        assert!(t.may_try(ip(1), "101@d", now).is_ok(), "another phone of the same office");
        assert!(t.may_try(ip(2), "100@d", now).is_ok(), "the same user elsewhere");
        assert!(t.may_try(ip(1), "100@d", now + WINDOW).is_ok());
    }

    #[test]
    fn guessing_from_many_addresses_is_slowed_and_the_user_at_home_is_not() {
        let (mut t, now) = (Throttle::new(LIMITS), Instant::now());
        t.succeeded(ip(1), "100@d", now);
        for n in 0..LIMITS.strangers {
            t.failed(ip(100 + n), "100@d", now);
        }
        assert!(t.may_try(ip(9999), "100@d", now).is_err(), "one more address");
        assert!(t.may_try(ip(1), "100@d", now).is_ok(), "where it has succeeded");
        assert!(t.may_try(ip(9999), "101@d", now).is_ok(), "another user");
    }

    #[test]
    fn an_address_that_scans_users_is_slowed_and_known_users_behind_it_are_not() {
        let (mut t, now) = (Throttle::new(LIMITS), Instant::now());
        t.succeeded(ip(1), "100@d", now);
        for n in 0..LIMITS.strangers {
            t.failed(ip(1), &format!("guess{n}@d"), now);
        }
        assert!(t.may_try(ip(1), "guess@d", now).is_err() && t.may_try(ip(1), "100@d", now).is_ok());
        let net: IpAddr = "2001:db8::1".parse().expect("an address");
        let same: IpAddr = "2001:db8::2".parse().expect("an address");
        for _ in 0..LIMITS.tries {
            t.failed(net, "100@d", now);
        }
        assert!(t.may_try(same, "100@d", now).is_err(), "one holder has a whole /64");
    }

    #[test]
    fn the_tables_are_bounded_and_forget_the_oldest() {
        let (mut t, now) = (Throttle::new(LIMITS), Instant::now());
        for n in 0..REMEMBERED as u32 + 10 {
            t.failed(ip(n), "u", now + Duration::from_micros(u64::from(n)));
        }
        assert!(t.addresses.0.len() <= REMEMBERED && t.pairs.0.len() <= REMEMBERED);
        assert_eq!(
            t.addresses.count(&ip(REMEMBERED as u32 + 9), now + Duration::from_secs(1)),
            1,
            "the newest"
        );
    }
}
