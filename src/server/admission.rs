//! Which connections are served: limits on their number, in total and for each peer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use metrics::{Gauge, counter};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What happens to the requests of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// They are served.
    Served,
    /// They are refused with 503, because there are too many connections.
    OverCapacity,
}

/// Why a connection gets no permit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AdmissionError {
    /// There is none left until another connection ends.
    Full,
    /// Its peer has as many as it may have.
    PeerFull,
}

/// Permits for connections. Of each class, there are at most `connections` connections, and at most
/// `per_peer` of one peer.
pub(super) struct Admission {
    connections: usize,
    per_peer: usize,
    /// Peers without a limit of their own.
    proxies: Vec<IpNet>,
    /// The number of open connections, as a metric.
    open: Gauge,
    /// Limits the warnings of peers with too many connections.
    warnings: DefaultDirectRateLimiter,
    state: Mutex<State>,
    /// Notified when there may be a permit for another connection.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The numbers of open connections: of each class (without a peer), and of each peer in it.
    counts: HashMap<(Class, Option<IpAddr>), usize>,
    /// The connections that wait for their next request, in the order in which they began to.
    idle: BTreeMap<u64, Arc<Slot>>,
    next: u64,
}

struct Slot {
    class: Class,
    /// None for a proxy.
    peer: Option<IpAddr>,
    /// Cancelled when the connection has to close in favour of another one.
    evicted: CancellationToken,
}

impl State {
    fn count(&self, class: Class, peer: Option<IpAddr>) -> usize {
        self.counts.get(&(class, peer)).copied().unwrap_or(0)
    }

    fn keys(slot: &Slot) -> impl Iterator<Item = (Class, Option<IpAddr>)> {
        let of_peer = slot.peer.map(|peer| (slot.class, Some(peer)));
        [(slot.class, None)].into_iter().chain(of_peer)
    }

    fn add(&mut self, slot: &Slot) {
        for key in Self::keys(slot) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    fn remove(&mut self, slot: &Slot) {
        for key in Self::keys(slot) {
            if let Some(count) = self.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    /// Takes the permit of the connection that has been idle longest, of one peer if one is given.
    fn evict(&mut self, peer: Option<IpAddr>) -> bool {
        let mut idle = self.idle.iter();
        let found = idle.find(|(_, slot)| peer.is_none() || slot.peer == peer);
        let Some(slot) = found.map(|(key, _)| *key).and_then(|key| self.idle.remove(&key)) else {
            return false;
        };
        self.remove(&slot);
        slot.evicted.cancel();
        true
    }
}

impl Admission {
    /// Permits without any connection.
    pub(super) fn new(
        connections: usize, per_peer: usize, proxies: Vec<IpNet>, open: Gauge,
    ) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        let warnings = RateLimiter::direct(Quota::per_minute(NonZeroU32::MIN));
        Self { connections, per_peer, proxies, open, warnings, state, changed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a permit for another connection, unless its peer has too many.
    pub(super) fn has_permit(&self) -> bool {
        let state = self.state();
        let is_free = |class| state.count(class, None) < self.connections;
        is_free(Class::Served) || !state.idle.is_empty() || is_free(Class::OverCapacity)
    }

    /// Waits until there is a permit for another connection.
    pub(super) async fn wait_for_permit(&self) {
        while !self.has_permit() {
            self.changed.notified().await;
        }
    }

    /// Waits until there is a permit. Without one, the connection must be closed at once.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        loop {
            match self.try_admit(address) {
                Ok(permit) => return Some(permit),
                Err(AdmissionError::Full) => self.changed.notified().await,
                Err(AdmissionError::PeerFull) => return None,
            }
        }
    }

    /// A permit for a connection: to be served if possible. If there are too many connections, or
    /// too many of this peer, the one of them that has been idle longest is closed.
    pub(super) fn try_admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, AdmissionError> {
        use Class::{OverCapacity, Served};
        let peer = self.peer(address);
        let mut state = self.state();
        let is_full = |state: &State, class| state.count(class, None) >= self.connections;
        let is_peer_full =
            |state: &State, class| peer.is_some() && state.count(class, peer) >= self.per_peer;
        let has_too_many = is_peer_full(&state, Served);
        let must_evict = has_too_many || is_full(&state, Served);
        let class = if !must_evict || state.evict(peer.filter(|_| has_too_many)) {
            Served
        } else if is_peer_full(&state, OverCapacity)
            || (has_too_many && is_full(&state, OverCapacity))
        {
            // The connections of others must not wait for this one.
            counter!("cmdb_connections_refused_total").increment(1);
            return Err(AdmissionError::PeerFull);
        } else if is_full(&state, OverCapacity) {
            return Err(AdmissionError::Full);
        } else {
            OverCapacity
        };
        let slot = Arc::new(Slot { class, peer, evicted: CancellationToken::new() });
        state.add(&slot);
        drop(state);
        if class == OverCapacity && has_too_many && self.warnings.check().is_ok() {
            let limit = self.per_peer;
            warn!(peer = %address.to_canonical(), limit, "a client has too many connections");
        }
        self.open.increment(1);
        Ok(Permit { admission: Arc::clone(self), slot, idle: None })
    }

    /// What counts as one peer: an IPv4 address, or the network of an IPv6 address, of which hosts
    /// usually have a /64. None for a proxy.
    fn peer(&self, address: IpAddr) -> Option<IpAddr> {
        // A socket for IPv4 and IPv6 reports IPv4 peers as mapped IPv6 addresses.
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|network| network.contains(&address));
        (!is_proxy).then(|| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        })
    }
}

/// The permit of an open connection.
pub(super) struct Permit {
    admission: Arc<Admission>,
    slot: Arc<Slot>,
    /// Its key among the idle connections.
    idle: Option<u64>,
}

impl Permit {
    /// What happens to the requests of the connection.
    pub(super) fn class(&self) -> Class {
        self.slot.class
    }

    /// Cancelled when the connection has to close because another one got its permit.
    pub(super) fn evicted(&self) -> CancellationToken {
        self.slot.evicted.clone()
    }

    /// Reports whether the connection waits for its next request. Call it after each request: the
    /// connection moves to the end of the list.
    pub(super) fn set_idle(&mut self, is_idle: bool) {
        if !is_idle && self.idle.is_none() {
            return;
        }
        let mut state = self.admission.state();
        if let Some(key) = self.idle.take() {
            state.idle.remove(&key);
        }
        if is_idle && self.slot.class == Class::Served && !self.slot.evicted.is_cancelled() {
            state.next += 1;
            let key = state.next;
            state.idle.insert(key, Arc::clone(&self.slot));
            self.idle = Some(key);
            if state.count(Class::OverCapacity, None) > 0 {
                // A new connection may be waiting.
                self.admission.changed.notify_one();
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set_idle(false);
        let mut state = self.admission.state();
        if !self.slot.evicted.is_cancelled() {
            state.remove(&self.slot);
        }
        self.admission.open.decrement(1);
        self.admission.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, per_peer: usize) -> Arc<Admission> {
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Arc::new(Admission::new(connections, per_peer, proxies, Gauge::noop()))
    }

    fn admit(admission: &Arc<Admission>, address: &str) -> Result<Permit, AdmissionError> {
        admission.try_admit(address.parse().unwrap())
    }

    fn class(permit: &Result<Permit, AdmissionError>) -> Result<Class, &AdmissionError> {
        permit.as_ref().map(Permit::class)
    }

    #[test]
    fn a_peer_has_a_limited_number_of_connections_and_others_get_the_rest() {
        let admission = admission(4, 2);
        let flood: Vec<_> = (0..6).map(|_| admit(&admission, "192.0.2.1")).collect();
        assert!(flood[..2].iter().all(|permit| class(permit) == Ok(Class::Served)));
        assert!(flood[2..4].iter().all(|permit| class(permit) == Ok(Class::OverCapacity)));
        assert!(flood[4..].iter().all(|permit| class(permit) == Err(&AdmissionError::PeerFull)));
        let others = [admit(&admission, "192.0.2.2"), admit(&admission, "2001:db8::1")];
        assert!(others.iter().all(|permit| class(permit) == Ok(Class::Served)));
        let excess: Vec<_> = (3..6).map(|n| admit(&admission, &format!("192.0.2.{n}"))).collect();
        // Nobody waits because of a peer with too many connections.
        assert_eq!(class(&excess[0]), Ok(Class::OverCapacity));
        assert_eq!(class(&excess[2]), Err(&AdmissionError::Full));
        assert!(!admission.has_permit());
        drop((flood, others, excess));
        assert!(admission.has_permit() && admission.state().counts.is_empty());
    }

    /// Otherwise connections of others would wait behind it, for which there are permits.
    #[test]
    fn a_peer_with_too_many_connections_waits_for_no_permit() {
        let admission = admission(4, 2);
        let peers = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"];
        let mut served: Vec<_> = peers.map(|peer| admit(&admission, peer)).into();
        let peers = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let over_capacity = peers.map(|peer| admit(&admission, peer));
        assert!(over_capacity.iter().all(|permit| class(permit) == Ok(Class::OverCapacity)));
        served.remove(0).unwrap();
        assert_eq!(class(&admit(&admission, "192.0.2.2")), Err(&AdmissionError::PeerFull));
        assert_eq!(class(&admit(&admission, "192.0.2.3")), Ok(Class::Served));
    }

    #[test]
    fn ipv6_peers_are_counted_by_64_and_mapped_addresses_as_ipv4() {
        for (first, second, is_one_peer) in [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            // Proxies have no limit.
            ("10.0.0.1", "10.0.0.1", false),
            ("10.0.0.1", "::ffff:10.0.0.1", false),
        ] {
            let admission = admission(2, 1);
            let permits = [admit(&admission, first), admit(&admission, second)];
            let expected = if is_one_peer { Class::OverCapacity } else { Class::Served };
            assert_eq!(class(&permits[1]), Ok(expected), "{first} {second}");
        }
    }

    #[test]
    fn the_connection_that_has_been_idle_longest_is_closed_for_a_new_one() {
        let admission = admission(3, 2);
        let mut permits: Vec<_> = ["192.0.2.1", "192.0.2.2", "192.0.2.2"]
            .map(|address| admit(&admission, address).unwrap())
            .into();
        // The last one has been idle longest: the first was used since.
        for (n, is_idle) in [(0, true), (2, true), (1, true), (0, true), (1, false)] {
            permits[n].set_idle(is_idle);
        }
        let new = admit(&admission, "192.0.2.3");
        assert_eq!(class(&new), Ok(Class::Served));
        let evicted = |permits: &[Permit]| -> Vec<_> {
            permits.iter().map(|permit| permit.evicted().is_cancelled()).collect()
        };
        assert_eq!(evicted(&permits), [false, false, true]);
        let other = admit(&admission, "192.0.2.2");
        assert_eq!(class(&other), Ok(Class::Served));
        assert_eq!(evicted(&permits), [true, false, true]);
        // A peer with too many connections gets the permit of one of its own.
        permits[1].set_idle(true);
        let third = admit(&admission, "192.0.2.2");
        assert_eq!(class(&third), Ok(Class::Served));
        assert_eq!(evicted(&permits), [true, true, true]);
        // No connection is idle any more.
        assert_eq!(class(&admit(&admission, "192.0.2.9")), Ok(Class::OverCapacity));
        drop((permits, new, other, third));
        assert!(admission.state().counts.is_empty() && admission.state().idle.is_empty());
    }
}
