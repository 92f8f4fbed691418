//! Messages of the first data channel: acknowledgements, tables, alarms (order 268, appendices 8 and 9).

use super::{
    Alarm, Category, Intrusion, Kind, LineState, Malformed, Moment, NONE, NONE_16, Node, PREAMBLE, Pair,
    Priority, VERSION, Way,
    bytes::{Reader, put_text, take_text},
    event::Party,
    number,
};

/// Channels of groups that one message 4 holds.
const CHANNELS: usize = 11;
const INTRUSION_TEXT: usize = 40;
const TRUNK_NAME: usize = 43;
const VERSION_TEXT: usize = 44;
/// Bytes of message 12 before its content.
const TEXT_HEADER: usize = 53;

/// Which of how many messages of a table this is; zeros where there is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Series {
    pub total: u16,
    pub index: u16,
}

/// Message 12: a text from subscriber to subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub object: u16,
    pub kind: u8,
    pub sender: Party,
    /// 0 delivered, 1 not, `FF` unknown.
    pub state: u8,
    pub code: u8,
    pub at: Moment,
    pub receiver: Party,
    pub sender_imsi: Party,
    pub receiver_imsi: Party,
    /// UTF-8, at most [`Text::MOST`] bytes; what is longer goes as a series.
    pub content: Vec<u8>,
}

impl Text {
    /// Bytes of content in one message.
    pub const MOST: usize = 255 - TEXT_HEADER;
}

/// What is told: message 1 to 12.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Alarm {
        kind: Alarm,
        code: u8,
    },
    /// The station's software has started again.
    Restarted,
    Object {
        object: u16,
        kind: Kind,
        party: Party,
        trunk: Option<u16>,
        category: Category,
        group: Option<u8>,
        priority: Priority,
        line: LineState,
    },
    /// Group, its control, and channels in it; at most eleven.
    Channels(Vec<(u8, u8, Pair)>),
    Services {
        party: Party,
        codes: Vec<u8>,
    },
    Intrusion {
        code: Intrusion,
        at: Moment,
        text: String,
    },
    Received {
        command: u8,
        status: u8,
    },
    Done {
        command: u8,
        status: u8,
    },
    /// States of both channels, a bit for each stream.
    Test {
        number: u8,
        first: u8,
        second: u8,
    },
    Trunk {
        trunk: u16,
        name: String,
    },
    Version {
        text: String,
        node: Node,
    },
    Text(Box<Text>),
}

impl Told {
    pub fn code(&self) -> u8 {
        match self {
            Self::Alarm { .. } => 0x21,
            Self::Restarted => 0x22,
            Self::Object { .. } => 0x23,
            Self::Channels(_) => 0x24,
            Self::Services { .. } => 0x25,
            Self::Intrusion { .. } => 0x26,
            Self::Received { .. } => 0x27,
            Self::Done { .. } => 0x28,
            Self::Test { .. } => 0x29,
            Self::Trunk { .. } => 0x2A,
            Self::Version { .. } => 0x2B,
            Self::Text(_) => 0x2C,
        }
    }

    /// The groups' channels as messages of a table.
    pub fn channels(all: &[(u8, u8, Pair)]) -> Vec<Self> {
        all.chunks(CHANNELS).map(|c| Self::Channels(c.to_vec())).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Alarm { kind, code } => out.extend([kind.code(), *code]),
            Self::Restarted => {}
            Self::Object { object, kind, party, trunk, category, group, priority, line } => {
                out.extend(object.to_le_bytes());
                out.push(kind.code());
                party.write(out);
                out.extend(trunk.unwrap_or(NONE_16).to_le_bytes());
                out.extend([category.code(), group.unwrap_or(NONE), priority.code(), line.code()]);
            }
            Self::Channels(all) => {
                let end = out.len() + CHANNELS * 4 + 1;
                for (group, control, pair) in all.iter().take(CHANNELS) {
                    out.extend([*group, *control]);
                    pair.write(out);
                }
                out.resize(end, NONE);
            }
            Self::Services { party, codes } => {
                party.write(out);
                out.push(u8::try_from(codes.len()).unwrap_or(NONE));
                codes.iter().for_each(|code| out.extend([NONE, NONE, *code]));
                if codes.is_empty() {
                    out.extend([NONE; 33]);
                }
            }
            Self::Intrusion { code, at, text } => {
                out.push(code.code());
                at.write(out);
                put_text(out, text, INTRUSION_TEXT);
            }
            Self::Received { command, status } | Self::Done { command, status } => {
                out.extend([*command, *status])
            }
            Self::Test { number, first, second } => out.extend([*number, *first, *second]),
            Self::Trunk { trunk, name } => {
                out.extend(trunk.to_le_bytes());
                put_text(out, name, TRUNK_NAME);
            }
            Self::Version { text, node } => {
                put_text(out, text, VERSION_TEXT);
                out.push(node.code());
            }
            Self::Text(text) => {
                out.extend(text.object.to_le_bytes());
                out.push(text.kind);
                text.sender.write(out);
                out.extend([text.state, text.code]);
                text.at.write(out);
                text.receiver.write(out);
                text.sender_imsi.write(out);
                text.receiver_imsi.write(out);
                out.extend(text.content.iter().take(Text::MOST));
            }
        }
    }

    fn read(code: u8, f: &mut Reader<'_>) -> Option<Self> {
        Some(match code {
            0x21 => Self::Alarm { kind: Alarm::from_repr(f.u8()?)?, code: f.u8()? },
            0x22 => Self::Restarted,
            0x23 => Self::Object {
                object: f.u16()?,
                kind: Kind::from_repr(f.u8()?)?,
                party: Party::read(f)?,
                trunk: Some(f.u16()?).filter(|t| *t != NONE_16),
                category: Category::from_repr(f.u8()?)?,
                group: Some(f.u8()?).filter(|g| *g != NONE),
                priority: Priority::from_repr(f.u8()?)?,
                line: LineState::from_repr(f.u8()?)?,
            },
            0x24 => {
                let mut all = Vec::new();
                for _ in 0..CHANNELS {
                    let (group, control, pair) = (f.u8()?, f.u8()?, Pair::read(f)?);
                    if group != NONE {
                        all.push((group, control, pair));
                    }
                }
                f.u8()?;
                Self::Channels(all)
            }
            0x25 => {
                let party = Party::read(f)?;
                let count = f.u8()?;
                let mut codes = Vec::new();
                for _ in 0..count {
                    let [_, _, code] = f.array()?;
                    codes.push(code);
                }
                if count == 0 {
                    f.array::<33>()?;
                }
                Self::Services { party, codes }
            }
            0x26 => Self::Intrusion {
                code: Intrusion::from_repr(f.u8()?)?,
                at: Moment::read(f.array()?)?,
                text: take_text(&f.array::<INTRUSION_TEXT>()?),
            },
            0x27 => Self::Received { command: f.u8()?, status: f.u8()? },
            0x28 => Self::Done { command: f.u8()?, status: f.u8()? },
            0x29 => Self::Test { number: f.u8()?, first: f.u8()?, second: f.u8()? },
            0x2A => Self::Trunk { trunk: f.u16()?, name: take_text(&f.array::<TRUNK_NAME>()?) },
            0x2B => Self::Version {
                text: take_text(&f.array::<VERSION_TEXT>()?),
                node: Node::from_repr(f.u8()?)?,
            },
            0x2C => Self::Text(Box::new(Text {
                object: f.u16()?,
                kind: f.u8()?,
                sender: Party::read(f)?,
                state: f.u8()?,
                code: f.u8()?,
                at: Moment::read(f.array()?)?,
                receiver: Party::read(f)?,
                sender_imsi: Party::read(f)?,
                receiver_imsi: Party::read(f)?,
                content: f.rest().to_vec(),
            })),
            _ => return None,
        })
    }
}

/// A message of the first channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub sorm: u8,
    pub series: Series,
    pub told: Told,
}

impl Reply {
    /// One that belongs to no table.
    pub fn alone(sorm: u8, told: Told) -> Self {
        Self { sorm, series: Series::default(), told }
    }

    pub fn read(unit: &[u8]) -> Result<Self, Malformed> {
        let mut f = Reader(unit);
        let reply = Self::fields(&mut f).ok_or(Malformed("a field is missing or out of range"))?;
        if f.rest().is_empty() { Ok(reply) } else { Err(Malformed("too long")) }
    }

    fn fields(f: &mut Reader<'_>) -> Option<Self> {
        f.u8().filter(|b| *b == PREAMBLE)?;
        let (sorm, code, length) = (f.u8()?, f.u8()?, f.u8()?);
        let series = Series { total: f.u16()?, index: f.u16()? };
        let _reserve = f.u8()?;
        f.u8().filter(|v| *v == VERSION)?;
        (usize::from(length) == f.0.len()).then_some(())?;
        Some(Self { sorm, series, told: Told::read(code, f)? })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![PREAMBLE, self.sorm, self.told.code(), 0];
        out.extend(self.series.total.to_le_bytes());
        out.extend(self.series.index.to_le_bytes());
        out.extend([NONE, VERSION]);
        self.told.write(&mut out);
        out[3] = u8::try_from(out.len() - Way::Reply.header()).unwrap_or(NONE);
        out
    }

    /// As [`Reply::to_bytes`], with each 0 of a number as `A`.
    pub fn to_bytes_with_a(&self) -> Vec<u8> {
        let mut out = self.to_bytes();
        let numbers: &[usize] = match self.told {
            Told::Object { .. } => &[14],
            Told::Services { .. } => &[11],
            Told::Text(_) => &[14, 31, 42, 53],
            _ => &[],
        };
        for at in numbers {
            if let Some([length, field @ ..]) = out.get_mut(*at..*at + 10) {
                number::zero_as_a(*length, field);
            }
        }
        out
    }
}
