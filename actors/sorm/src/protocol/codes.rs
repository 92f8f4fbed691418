//! Enumerations of the protocol.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, FromRepr};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Display, FromRepr, EnumIter)]
        #[serde(rename_all = "snake_case")]
        #[strum(serialize_all = "snake_case")]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)* }

        impl $name {
            pub fn code(self) -> u8 {
                self as u8
            }
        }
    };
}

codes! {
    /// What is under control.
    Kind {
        /// A subscriber of this station.
        Own = 0x01,
        /// One of the network, by its full number.
        Full = 0x02,
        /// A bundle of trunks.
        Trunk = 0x03,
        /// One of the network, by the first digits of its number.
        Partial = 0x12,
    }
}
codes! {
    /// Whose a number is (признак номера).
    Sign {
        /// A subscriber of this station.
        Own = 0x01,
        /// The telephone network of Russia: local, zonal and intercity in one since order 268.
        Russia = 0x04,
        /// That of another country.
        Abroad = 0x05,
        /// Emergency and reference services.
        Emergency = 0x06,
        /// IMSI or another mobile identifier.
        Mobile = 0x07,
    }
}
codes! {
    /// How much is told (категория контроля).
    Category {
        /// Events and speech, both parties in one channel.
        Combined = 0x01,
        /// Events only.
        Statistical = 0x02,
        /// Events and speech, each party in a channel of its own.
        Separate = 0x11,
    }
}
codes! {
    /// What the channels of a group are for.
    Control {
        Combined = 0x01,
        Separate = 0x11,
    }
}
codes! {
    Priority {
        /// It takes a channel from an ordinary one where none is free.
        High = 0x01,
        Ordinary = 0x02,
        /// Of an object under statistical control.
        Statistical = 0xFF,
    }
}
codes! {
    /// A call, as the station sees it. Calls set up by an operator have twice the code.
    Attribute {
        Outgoing = 0x11,
        Incoming = 0x12,
        InternationalTransit = 0x14,
        IntercityTransit = 0x18,
        Internal = 0x1C,
    }
}
codes! {
    /// What an event of a supplementary service (ДВО) is about.
    Phase {
        /// None: an ordinary call.
        Call = 0x00,
        Order = 0x01,
        Check = 0x02,
        Cancel = 0x03,
        Activation = 0x04,
        /// Told while the call is on.
        Information = 0x05,
    }
}
codes! {
    Alarm {
        /// Tables of the interception are damaged or lost.
        TablesLost = 0x01,
        /// The tables are whole, an operator is needed.
        OperatorNeeded = 0x02,
        NoOperator = 0x03,
        LineChanged = 0x04,
    }
}
codes! {
    /// Why message 6 is sent.
    Intrusion {
        ForbiddenPort = 0x01,
        WrongPassword = 0x02,
        TableAccess = 0x03,
        PortReassigned = 0x04,
        WrongNumber = 0x05,
    }
}
codes! {
    /// A subscriber's line.
    LineState {
        Good = 0x00,
        Faulty = 0x01,
        Blocked = 0x03,
        Restricted = 0x07,
        Unknown = 0xFF,
    }
}
codes! {
    /// What the station is in its network.
    Node {
        Terminal = 0x01,
        Transit = 0x02,
        TerminalTransit = 0x03,
    }
}
codes! {
    /// Why a command is refused or fails: extended codes, as the mediator can be told to pass them on. Without them it says
    /// what [`Refusal::plain`] gives.
    Refusal {
        /// Message 8 after a command with a wrong password; no extended code, and sent either way.
        WrongPassword = 0x03,
        Length = 0x10,
        Parameters = 0x11,
        ObjectKind = 0x12,
        NumberSign = 0x13,
        Category = 0x14,
        Priority = 0x15,
        AlreadyStarted = 0x16,
        NotStarted = 0x17,
        /// Not the number of this station's interception equipment.
        SormNumber = 0x18,
        NumberLength = 0x19,
        NeitherNumberNorTrunk = 0x20,
        Interrupted = 0x21,
        TrunkNotSet = 0x25,
        /// The command before is still being carried out.
        Busy = 0x2D,
        GroupControl = 0x30,
        TableFull = 0x31,
        NoSuchChannel = 0x32,
        ObjectSet = 0x33,
        ObjectNumber = 0x34,
        NumberNotFound = 0x35,
        /// The number is under control as another object.
        NumberSet = 0x36,
        ObjectUnfit = 0x37,
        KindOrSign = 0x38,
        /// Command 13, and no table is being sent.
        NothingToInterrupt = 0x39,
        ChannelInGroup = 0x3A,
        NumberCoincides = 0x3B,
        /// Commands 7 and 8: no such object.
        ConnectObject = 0x3D,
        Group = 0x3E,
        ChannelA = 0x3F,
        ChannelB = 0x40,
        Channels = 0x41,
        DigitCount = 0x44,
        TrunkHasNoNumber = 0x47,
        NumberAndTrunk = 0x48,
        NoSuchTrunk = 0x49,
        TrunkSet = 0x4A,
        TrunksFull = 0x4B,
        TrunkDiffers = 0x4C,
        TrunkParameters = 0x4E,
        NothingFound = 0x53,
        NotLocal = 0x54,
        SignWrong = 0x55,
        KindOfLocal = 0x56,
        LocalSignOfOther = 0x57,
        /// No channels for an object under full control.
        ChannelNotSet = 0x5F,
        NoServices = 0x61,
        Allocation = 0x73,
    }
}

impl Refusal {
    /// Its status in message 7, "received", where extended codes are off.
    pub fn plain_received(self) -> u8 {
        if self == Self::NotStarted { 0x02 } else { 0x01 }
    }

    /// Its status in message 8, "carried out", where extended codes are off.
    pub fn plain_done(self) -> u8 {
        match self {
            Self::WrongPassword => 0x03,
            Self::SormNumber => 0x05,
            Self::AlreadyStarted => 0x07,
            _ => 0x01,
        }
    }
}

/// By what a call was selected, in pairs of bits: low for full combined control, high for statistical, both for separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selection(pub u8);

impl Selection {
    pub fn by_a(category: Category) -> Self {
        Self(pair(category))
    }

    pub fn by_b(category: Category) -> Self {
        Self(pair(category) << 2)
    }

    pub fn by_trunk(category: Category) -> Self {
        Self(pair(category) << 4)
    }

    pub fn by_service(category: Category) -> Self {
        Self(pair(category) << 6)
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

fn pair(category: Category) -> u8 {
    match category {
        Category::Combined => 0b01,
        Category::Statistical => 0b10,
        Category::Separate => 0b11,
    }
}
