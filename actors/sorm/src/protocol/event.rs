//! Messages of the second data channel: events of calls and channels (order 268, appendices 10 and 11).

use serde::{Deserialize, Serialize};
use strum::{Display, FromRepr};

use super::{
    Attribute, Digits, Malformed, Moment, NONE, NONE_16, PREAMBLE, Pair, Phase, Priority, Selection, Sign,
    Way, bytes::Reader, number,
};

/// What has happened: message 1.1 to 1.4, 2.1 and 2.2.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display, FromRepr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum Said {
    /// The full called number has been received.
    Number = 0x41,
    Answer = 0x42,
    Release = 0x43,
    /// A supplementary service (ДВО) is used.
    Service = 0x44,
    ChannelConnected = 0x51,
    ChannelFreed = 0x52,
}

/// Operation codes; what one means depends on the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Operation(pub u8);

impl Operation {
    /// 1.1, 1.2, 1.4 and 2.1: a channel is connected.
    pub const NORMAL: Self = Self(0x00);
    /// No channel of the group is free.
    pub const NO_CHANNEL: Self = Self(0x01);
    /// The object is under statistical control.
    pub const STATISTICAL: Self = Self(0xFF);

    /// 1.3: why a call ended.
    pub const TECHNICAL: Self = Self(0x01);
    pub const INCOMPLETE: Self = Self(0x02);
    pub const BUSY: Self = Self(0x03);
    pub const NO_ANSWER: Self = Self(0x04);
    pub const AFTER_CONVERSATION: Self = Self(0x05);

    /// 2.2: why a channel was freed.
    pub const BY_COMMAND_8: Self = Self(0x01);
    pub const BY_PRIORITY: Self = Self(0x02);
    pub const BY_COMMAND_7: Self = Self(0x03);
    pub const BY_FAULT: Self = Self(0x04);
    pub const BY_COMMAND_6: Self = Self(0x05);
    pub const BY_COMMAND_2: Self = Self(0x06);
}

/// A party of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Party {
    pub sign: Option<Sign>,
    pub number: Digits,
}

impl Party {
    pub(super) fn read(f: &mut Reader<'_>) -> Option<Self> {
        let (sign, length, packed) = (f.u8()?, f.u8()?, f.array()?);
        let sign = if sign == NONE { None } else { Some(Sign::from_repr(sign)?) };
        Some(Self { sign, number: Digits::read(length, packed)? })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.sign.map_or(NONE, Sign::code));
        self.number.write(out);
    }
}

/// What is told of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvent {
    pub said: Said,
    pub calling: Party,
    pub called: Party,
    pub trunk: Option<u16>,
    pub channels: Pair,
    pub at: Moment,
    pub priority: Priority,
    pub operation: Operation,
    /// Code of the service, as MAP numbers them (3GPP TS 29.002).
    pub service: Option<u8>,
    pub additional: u8,
}

/// A message of the second channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Call {
        sorm: u8,
        call: u16,
        /// Kind of object, as it was set.
        kind: u8,
        object: u16,
        selection: Selection,
        attribute: Option<Attribute>,
        phase: Phase,
        event: CallEvent,
    },
    /// 2.3, the answer to a test: states of both channels, a bit for each stream.
    Test { sorm: u8, number: u8, first: u8, second: u8 },
}

const TEST: u8 = 0x53;

impl Event {
    pub fn read(unit: &[u8]) -> Result<Self, Malformed> {
        let mut f = Reader(unit);
        let event = Self::fields(&mut f).ok_or(Malformed("a field is missing or out of range"))?;
        if f.rest().is_empty() { Ok(event) } else { Err(Malformed("too long")) }
    }

    fn fields(f: &mut Reader<'_>) -> Option<Self> {
        f.u8().filter(|b| *b == PREAMBLE)?;
        let (sorm, code, length) = (f.u8()?, f.u8()?, f.u8()?);
        let (call, kind, object) = (f.u16()?, f.u8()?, f.u16()?);
        let (selection, attribute, phase) = (f.u8()?, f.u8()?, f.u8()?);
        if usize::from(length) != f.0.len() {
            return None;
        }
        if code == TEST {
            return Some(Self::Test { sorm, number: f.u8()?, first: f.u8()?, second: f.u8()? });
        }
        let attribute = if attribute == NONE { None } else { Some(Attribute::from_repr(attribute)?) };
        let said = Said::from_repr(code)?;
        let (calling, called) = (Party::read(f)?, Party::read(f)?);
        let trunk = Some(f.u16()?).filter(|t| *t != NONE_16);
        let channels = Pair::read(f)?;
        let at = Moment::read(f.array()?)?;
        let (priority, operation) = (Priority::from_repr(f.u8()?)?, Operation(f.u8()?));
        let [first, second, service] = f.array()?;
        if (first, second) != (NONE, NONE) {
            return None;
        }
        let service = Some(service).filter(|s| *s != NONE);
        let additional = f.u8()?;
        let event = CallEvent {
            said,
            calling,
            called,
            trunk,
            channels,
            at,
            priority,
            operation,
            service,
            additional,
        };
        let (selection, phase) = (Selection(selection), Phase::from_repr(phase)?);
        Some(Self::Call { sorm, call, kind, object, selection, attribute, phase, event })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![PREAMBLE];
        match self {
            Self::Test { sorm, number, first, second } => {
                out.extend([*sorm, TEST, 3]);
                out.extend([NONE; 8]);
                out.extend([*number, *first, *second]);
            }
            Self::Call { sorm, call, kind, object, selection, attribute, phase, event } => {
                out.extend([*sorm, event.said as u8, 0]);
                out.extend(call.to_le_bytes());
                out.push(*kind);
                out.extend(object.to_le_bytes());
                out.extend([selection.0, attribute.map_or(NONE, Attribute::code), phase.code()]);
                event.calling.write(&mut out);
                event.called.write(&mut out);
                out.extend(event.trunk.unwrap_or(NONE_16).to_le_bytes());
                event.channels.write(&mut out);
                event.at.write(&mut out);
                out.extend([event.priority.code(), event.operation.0]);
                // The order leaves open which of three bytes has the code; it stands where message 5 of the first channel,
                // which has been seen on real equipment, has it.
                out.extend([NONE, NONE, event.service.unwrap_or(NONE), event.additional]);
                out[3] = u8::try_from(out.len() - Way::Event.header()).unwrap_or(NONE);
            }
        }
        out
    }

    /// As [`Event::to_bytes`], with each 0 of a number as `A`.
    pub fn to_bytes_with_a(&self) -> Vec<u8> {
        let mut out = self.to_bytes();
        if matches!(self, Self::Call { .. }) {
            for at in [13, 24] {
                if let Some([length, field @ ..]) = out.get_mut(at..at + 10) {
                    number::zero_as_a(*length, field);
                }
            }
        }
        out
    }
}
