//! Why a call ended: ITU-T Q.850 causes and what SIP calls them (RFC 3398, 7.2.4.1 and 8.2.6.1; RFC 6432).

use serde::{Deserialize, Serialize};

/// A Q.850 cause value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cause(pub u8);

macro_rules! causes {
    ($($name:ident = $value:literal, $text:literal, $status:literal;)*) => {
        impl Cause {
            $(pub const $name: Self = Self($value);)*

            /// Its name in Q.850.
            pub fn text(self) -> &'static str {
                match self { $(Self($value) => $text,)* _ => "unknown cause" }
            }

            /// The status an INVITE is refused with.
            pub fn status(self) -> u16 {
                match self { $(Self($value) => $status,)* Self(c) => match c {
                    0..=31 => 480,
                    32..=47 => 503,
                    48..=79 => 488,
                    80..=95 => 400,
                    _ => 500,
                } }
            }
        }
    };
}

causes! {
    UNALLOCATED = 1, "unallocated number", 404;
    NO_ROUTE = 3, "no route to destination", 404;
    NORMAL = 16, "normal call clearing", 487;
    BUSY = 17, "user busy", 486;
    NO_RESPONSE = 18, "no user responding", 408;
    NO_ANSWER = 19, "no answer from the user", 480;
    ABSENT = 20, "subscriber absent", 480;
    REJECTED = 21, "call rejected", 403;
    CHANGED = 22, "number changed", 410;
    ANSWERED_ELSEWHERE = 26, "non-selected user clearing", 480;
    OUT_OF_ORDER = 27, "destination out of order", 502;
    INVALID_NUMBER = 28, "invalid number format", 484;
    FACILITY_REJECTED = 29, "facility rejected", 501;
    UNSPECIFIED = 31, "normal, unspecified", 480;
    NO_CIRCUIT = 34, "no circuit available", 503;
    NETWORK_OUT_OF_ORDER = 38, "network out of order", 500;
    TEMPORARY_FAILURE = 41, "temporary failure", 500;
    CONGESTION = 42, "switching equipment congestion", 503;
    UNAVAILABLE = 47, "resource unavailable", 503;
    NOT_SUBSCRIBED = 50, "requested facility not subscribed", 403;
    NOT_AUTHORIZED = 57, "bearer capability not authorized", 403;
    INCOMPATIBLE = 88, "incompatible destination", 488;
    ROUTING_ERROR = 25, "exchange routing error", 483;
    TIMER = 102, "recovery on timer expiry", 504;
    PROTOCOL = 111, "protocol error", 500;
    INTERWORKING = 127, "interworking, unspecified", 500;
}

impl Cause {
    /// What a failed INVITE of ours means.
    pub fn of_status(status: u16) -> Self {
        match status {
            401..=403 | 407 => Self::REJECTED,
            404 | 604 => Self::UNALLOCATED,
            410 => Self::CHANGED,
            408 => Self::TIMER,
            413 | 414 | 416 | 420 | 421 | 423 | 505 => Self::INTERWORKING,
            480 => Self::NO_RESPONSE,
            481 | 500 | 503 => Self::TEMPORARY_FAILURE,
            482 | 483 => Self::ROUTING_ERROR,
            484 => Self::INVALID_NUMBER,
            485 => Self::UNALLOCATED,
            486 | 600 => Self::BUSY,
            487 => Self::NORMAL,
            488 | 606 | 415 => Self::INCOMPATIBLE,
            501 => Self(79),
            502 => Self::NETWORK_OUT_OF_ORDER,
            504 => Self::TIMER,
            603 => Self::REJECTED,
            _ => Self::INTERWORKING,
        }
    }

    /// `Q.850;cause=16;text="…"` (RFC 3326).
    pub fn reason_header(self) -> String {
        format!("Q.850;cause={};text=\"{}\"", self.0, self.text())
    }

    /// Reads a `Reason` header.
    pub fn from_reason(value: &str) -> Option<Self> {
        value.split(',').find_map(|one| {
            let mut parts = one.split(';').map(str::trim);
            let protocol = parts.next()?;
            let cause = parts.find_map(|p| p.strip_prefix("cause="))?.trim();
            match protocol.to_ascii_uppercase().as_str() {
                "Q.850" => cause.parse().ok().filter(|c| *c < 128).map(Self),
                _ => None,
            }
        })
    }
}

impl From<domain::routing::route::Cause> for Cause {
    fn from(cause: domain::routing::route::Cause) -> Self {
        Self(cause.code())
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0, self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_statuses_are_told_apart() {
        assert_eq!((Cause::BUSY.status(), Cause::of_status(486)), (486, Cause::BUSY));
        assert_eq!((Cause(99).status(), Cause(33).status()), (500, 503));
        assert_eq!(Cause::from_reason("SIP;cause=200, Q.850;cause=17;text=\"user busy\""), Some(Cause::BUSY));
        assert_eq!(Cause::from_reason(&Cause::NO_ANSWER.reason_header()), Some(Cause::NO_ANSWER));
        assert_eq!(Cause::from_reason("Q.850;cause=999"), None);
        for code in 300..=699 {
            assert!(Cause::of_status(code).0 > 0);
        }
        for cause in 0..=127 {
            assert!((400..=699).contains(&Cause(cause).status()));
        }
    }
}
