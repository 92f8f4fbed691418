//! Commands of the control point (order 268, appendices 5 and 6).

use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, FromRepr};

use super::{
    Category, Digits, Kind, NONE, NONE_16, PREAMBLE, Priority, Refusal, Sign, Way, bytes::Reader, number,
};

/// Six digits in the header of every command. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Password(pub [u8; 6]);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(kit::MARK)
    }
}

impl Password {
    /// What a station has before command 3.
    pub const FIRST: Self = Self(*b"123456");
}

/// A control channel (КСЛ): the stream in bits 7 to 5, its number there in bits 4 to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channel(pub u8);

impl Channel {
    pub fn stream(self) -> u8 {
        self.0 >> 5
    }

    pub fn number(self) -> u8 {
        self.0 & 0x1F
    }

    pub(super) fn read(code: u8) -> Option<Self> {
        (code != NONE).then_some(Self(code))
    }
}

/// The channels of one content: A and B in one, or each in its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Pair {
    pub a: Option<Channel>,
    pub b: Option<Channel>,
}

impl Pair {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend([self.a, self.b].map(|c| c.map_or(NONE, |c| c.0)));
    }

    pub(super) fn read(fields: &mut Reader<'_>) -> Option<Self> {
        Some(Self { a: Channel::read(fields.u8()?), b: Channel::read(fields.u8()?) })
    }
}

/// What is under control, as commands 5, 6 and 10 name it. Fields that are none of the enumerations' are kept as they are
/// for the answer to say which one is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// `None`: whichever.
    pub object: Option<u16>,
    pub kind: u8,
    pub sign: u8,
    pub number: Digits,
    pub trunk: Option<u16>,
}

impl Subject {
    /// Every object of the table.
    pub const ALL: Self = Self { object: None, kind: NONE, sign: NONE, number: Digits::NONE, trunk: None };

    fn read(f: &mut Reader<'_>) -> Option<Result<Self, Refusal>> {
        let (object, kind, sign) = (f.u16()?, f.u8()?, f.u8()?);
        let (length, packed, trunk) = (f.u8()?, f.array()?, f.u16()?);
        Some(match Digits::read(length, packed) {
            Some(number) => Ok(Self { object: some(object), kind, sign, number, trunk: some(trunk) }),
            None => Err(no_number(length)),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.object.unwrap_or(NONE_16).to_le_bytes());
        out.extend([self.kind, self.sign]);
        self.number.write(out);
        out.extend(self.trunk.unwrap_or(NONE_16).to_le_bytes());
    }

    pub fn kind(&self) -> Result<Kind, Refusal> {
        Kind::from_repr(self.kind).ok_or(Refusal::ObjectKind)
    }

    /// None for a bundle of trunks.
    pub fn sign(&self) -> Result<Option<Sign>, Refusal> {
        match self.sign {
            NONE => Ok(None),
            code => Sign::from_repr(code).map(Some).ok_or(Refusal::NumberSign),
        }
    }
}

/// What is wrong with a field that holds no number: how many symbols it says it has, or one of them.
fn no_number(length: u8) -> Refusal {
    if (1..=18).contains(&length) || length == NONE { Refusal::Length } else { Refusal::NumberLength }
}

fn some(number: u16) -> Option<u16> {
    (number != NONE_16).then_some(number)
}

/// How an object is to be controlled; checked when the command is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub category: u8,
    pub group: u8,
    pub priority: u8,
}

impl Wanted {
    fn read(f: &mut Reader<'_>) -> Option<Self> {
        Some(Self { category: f.u8()?, group: f.u8()?, priority: f.u8()? })
    }

    /// The group is none for an object under statistical control.
    pub fn checked(self) -> Result<(Category, Option<u8>, Priority), Refusal> {
        let category = Category::from_repr(self.category).ok_or(Refusal::Category)?;
        let priority = Priority::from_repr(self.priority).ok_or(Refusal::Priority)?;
        let group = match (category, self.group) {
            (Category::Statistical, _) => None,
            (_, 0 | NONE) => return Err(Refusal::Group),
            (_, group) => Some(group),
        };
        if priority == Priority::Statistical && category != Category::Statistical {
            return Err(Refusal::Priority);
        }
        Ok((category, group, priority))
    }
}

/// Command 1 to 17.
#[derive(Debug, Clone, PartialEq, Eq, EnumDiscriminants)]
#[strum_discriminants(name(Code), derive(FromRepr))]
#[repr(u8)]
pub enum Command {
    Start = 0x01,
    Stop = 0x02,
    SetPassword(Password) = 0x03,
    /// Puts channels into a group.
    AddChannel {
        group: u8,
        control: u8,
        pair: Pair,
    } = 0x04,
    /// Puts an object under control.
    PutObject(Subject, Wanted) = 0x05,
    RemoveObject(Subject) = 0x06,
    /// Connects a channel to a call under way.
    Connect {
        call: u16,
        kind: u8,
        object: u16,
        group: u8,
    } = 0x07,
    Free {
        call: u16,
        kind: u8,
        object: u16,
        pair: Pair,
    } = 0x08,
    RemoveChannel {
        group: u8,
        pair: Pair,
    } = 0x09,
    /// Asks for the table of objects.
    Objects(Subject) = 0x0A,
    /// For the channels of the groups; what is none asks for any.
    Channels {
        group: Option<u8>,
        control: u8,
        pair: Pair,
    } = 0x0B,
    /// For the services of a subscriber; without a number, for those of the station.
    Services {
        sign: u8,
        number: Digits,
    } = 0x0C,
    /// Interrupts a table.
    Interrupt = 0x0D,
    /// Tests the data channels.
    Test(u8) = 0x0E,
    /// Changes how an object is controlled.
    Change {
        object: u16,
        wanted: Wanted,
    } = 0x0F,
    /// Asks for the names of trunks.
    Trunks(Option<u16>) = 0x10,
    Version = 0x11,
}

impl Command {
    pub fn code(&self) -> u8 {
        Code::from(self) as u8
    }

    fn read(code: u8, payload: &[u8]) -> Result<Self, Refusal> {
        let code = Code::from_repr(code).ok_or(Refusal::Parameters)?;
        let mut fields = Reader(payload);
        let command = Self::fields(code, &mut fields).ok_or(Refusal::Length)??;
        if fields.rest().is_empty() { Ok(command) } else { Err(Refusal::Length) }
    }

    fn fields(code: Code, f: &mut Reader<'_>) -> Option<Result<Self, Refusal>> {
        let subject = |f: &mut Reader<'_>| Subject::read(f);
        Some(Ok(match code {
            Code::Start => Self::Start,
            Code::Stop => Self::Stop,
            Code::SetPassword => Self::SetPassword(Password(f.array()?)),
            Code::AddChannel => Self::AddChannel { group: f.u8()?, control: f.u8()?, pair: Pair::read(f)? },
            Code::PutObject => match subject(f)? {
                Ok(subject) => Self::PutObject(subject, Wanted::read(f)?),
                Err(refusal) => return Some(Err(refusal)),
            },
            Code::RemoveObject => return subject(f).map(|s| s.map(Self::RemoveObject)),
            Code::Objects => return subject(f).map(|s| s.map(Self::Objects)),
            Code::Connect => {
                Self::Connect { call: f.u16()?, kind: f.u8()?, object: f.u16()?, group: f.u8()? }
            }
            Code::Free => {
                Self::Free { call: f.u16()?, kind: f.u8()?, object: f.u16()?, pair: Pair::read(f)? }
            }
            Code::RemoveChannel => Self::RemoveChannel { group: f.u8()?, pair: Pair::read(f)? },
            Code::Channels => Self::Channels {
                group: Some(f.u8()?).filter(|g| *g != NONE),
                control: f.u8()?,
                pair: Pair::read(f)?,
            },
            Code::Services => {
                let (sign, length, packed) = (f.u8()?, f.u8()?, f.array()?);
                match Digits::read(length, packed) {
                    Some(number) => Self::Services { sign, number },
                    None => return Some(Err(no_number(length))),
                }
            }
            Code::Interrupt => Self::Interrupt,
            Code::Test => Self::Test(f.u8()?),
            Code::Change => Self::Change { object: f.u16()?, wanted: Wanted::read(f)? },
            Code::Trunks => Self::Trunks(some(f.u16()?)),
            Code::Version => Self::Version,
        }))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let wanted = |w: &Wanted| [w.category, w.group, w.priority];
        match self {
            Self::Start | Self::Stop | Self::Interrupt | Self::Version => {}
            Self::SetPassword(password) => out.extend(password.0),
            Self::AddChannel { group, control, pair } => {
                out.extend([*group, *control]);
                pair.write(out);
            }
            Self::PutObject(subject, how) => {
                subject.write(out);
                out.extend(wanted(how));
            }
            Self::RemoveObject(subject) | Self::Objects(subject) => subject.write(out),
            Self::Connect { call, kind, object, group } => {
                out.extend(call.to_le_bytes());
                out.push(*kind);
                out.extend(object.to_le_bytes());
                out.push(*group);
            }
            Self::Free { call, kind, object, pair } => {
                out.extend(call.to_le_bytes());
                out.push(*kind);
                out.extend(object.to_le_bytes());
                pair.write(out);
            }
            Self::RemoveChannel { group, pair } => {
                out.push(*group);
                pair.write(out);
            }
            Self::Channels { group, control, pair } => {
                out.extend([group.unwrap_or(NONE), *control]);
                pair.write(out);
            }
            Self::Services { sign, number } => {
                out.push(*sign);
                number.write(out);
            }
            Self::Test(number) => out.push(*number),
            Self::Change { object, wanted: how } => {
                out.extend(object.to_le_bytes());
                out.extend(wanted(how));
            }
            Self::Trunks(trunk) => out.extend(trunk.unwrap_or(NONE_16).to_le_bytes()),
        }
    }
}

/// A command with its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Number of the station's interception equipment.
    pub sorm: u8,
    pub password: Password,
    pub command: Command,
}

/// A command that cannot be read: whom it is for, which it is, and why it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("command {code:#04x} is refused: {refusal}")]
pub struct BadRequest {
    pub sorm: u8,
    pub code: u8,
    pub refusal: Refusal,
}

impl Request {
    /// Reads one unit, as [`super::cut`] found it.
    pub fn read(unit: &[u8]) -> Result<Self, BadRequest> {
        let mut f = Reader(unit);
        let header = (|| Some((f.u8().filter(|b| *b == PREAMBLE)?, f.u8()?, f.u8()?, f.u8()?, f.array()?)))();
        let short = BadRequest { sorm: NONE, code: NONE, refusal: Refusal::Length };
        let (_, sorm, code, length, password) = header.ok_or(short)?;
        let payload = f.rest();
        let bad = |refusal| BadRequest { sorm, code, refusal };
        if payload.len() != usize::from(length) {
            return Err(bad(Refusal::Length));
        }
        let command = Command::read(code, payload).map_err(bad)?;
        Ok(Self { sorm, password: Password(password), command })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![PREAMBLE, self.sorm, self.command.code(), 0];
        out.extend(self.password.0);
        self.command.write(&mut out);
        out[3] = u8::try_from(out.len() - Way::Command.header()).unwrap_or(NONE);
        out
    }

    /// As [`Request::to_bytes`], with each 0 of a number as `A`.
    pub fn to_bytes_with_a(&self) -> Vec<u8> {
        let mut out = self.to_bytes();
        let at = match self.command {
            Command::PutObject(..) | Command::RemoveObject(_) | Command::Objects(_) => 14,
            Command::Services { .. } => 11,
            _ => return out,
        };
        if let Some([length, field @ ..]) = out.get_mut(at..at + 10) {
            number::zero_as_a(*length, field);
        }
        out
    }
}
