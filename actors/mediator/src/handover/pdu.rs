//! PDUs of ETSI TS 102 232-1 as far as the handover needs them, in DER: the header, events (IRI), content (CC, TS 102 232-5)
//! and what keeps the connection (TRI).

use serde::{Deserialize, Serialize};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, DERWriter, Tag, models::ObjectIdentifier};

/// li-psDomainId: itu-t(0) identified-organization(4) etsi(0) securityDomain(2) lawfulIntercept(2) li-ps(5) genHeader(1) version17.
const DOMAIN: [u64; 8] = [0, 4, 0, 2, 2, 5, 1, 17];
/// Relative to it: iPMultimedia(5), version 6, cC(2).
const IPMMCC: [u8; 4] = [5, 5, 6, 2];
/// Largest PDU that is taken.
const LONGEST: usize = 64 * 1024;

/// What every PDU says of who sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// ISO 3166, two letters: where the interception is authorised, and where it is delivered.
    pub country: String,
    pub operator: String,
    pub network_element: String,
}

/// What an event is of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum IriType {
    Begin = 1,
    End = 2,
    Continue = 3,
    /// Of no call that goes on.
    Report = 4,
}

/// Where content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Direction {
    FromTarget = 0,
    ToTarget = 1,
    /// Both are mixed.
    Unknown = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Iri {
        kind: IriType,
        contents: Vec<u8>,
    },
    /// A whole IP packet.
    Cc {
        direction: Direction,
        packet: Vec<u8>,
    },
    KeepAlive,
    KeepAliveResponse,
    /// Numbers of communications and PDUs begin anew.
    CinReset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Lawful interception identifier.
    pub liid: String,
    /// Communication identity number: the call.
    pub cin: Option<u32>,
    pub sequence: u32,
    /// Seconds and microseconds.
    pub at: (i64, u32),
    pub payload: Payload,
}

impl Pdu {
    pub fn to_der(&self, sender: &Sender) -> Vec<u8> {
        yasna::construct_der(|w| {
            w.write_sequence(|w| {
                w.next().write_tagged_implicit(Tag::context(1), |w| self.header(sender, w));
                // A CHOICE is always tagged explicitly.
                w.next().write_tagged(Tag::context(2), |w| self.payload(w));
            });
        })
    }

    fn header(&self, sender: &Sender, w: DERWriter<'_>) {
        let implicit = Tag::context;
        w.write_sequence(|w| {
            let domain = ObjectIdentifier::from_slice(&DOMAIN);
            w.next().write_tagged_implicit(implicit(0), |w| w.write_oid(&domain));
            w.next().write_tagged_implicit(implicit(1), |w| w.write_bytes(self.liid.as_bytes()));
            w.next().write_tagged_implicit(implicit(2), |w| w.write_printable_string(&sender.country));
            w.next().write_tagged_implicit(implicit(3), |w| {
                w.write_sequence(|w| {
                    w.next().write_tagged_implicit(implicit(0), |w| {
                        w.write_sequence(|w| {
                            let octets = |tag, text: &str, w: &mut yasna::DERWriterSeq<'_>| {
                                w.next().write_tagged_implicit(tag, |w| w.write_bytes(text.as_bytes()));
                            };
                            octets(implicit(0), &sender.operator, w);
                            octets(implicit(1), &sender.network_element, w);
                        });
                    });
                    if let Some(cin) = self.cin {
                        w.next().write_tagged_implicit(implicit(1), |w| w.write_u32(cin));
                    }
                    w.next()
                        .write_tagged_implicit(implicit(2), |w| w.write_printable_string(&sender.country));
                });
            });
            w.next().write_tagged_implicit(implicit(4), |w| w.write_u32(self.sequence));
            w.next().write_tagged_implicit(implicit(7), |w| {
                w.write_sequence(|w| {
                    w.next().write_tagged_implicit(implicit(0), |w| w.write_i64(self.at.0));
                    w.next().write_tagged_implicit(implicit(1), |w| w.write_u32(self.at.1));
                });
            });
        });
    }

    fn payload(&self, w: DERWriter<'_>) {
        let implicit = Tag::context;
        let enumerated = |tag, value: u8, w: &mut yasna::DERWriterSeq<'_>| {
            w.next().write_tagged_implicit(implicit(tag), |w| w.write_enum(i64::from(value)));
        };
        let tri = |tag, w: DERWriter<'_>| {
            w.write_tagged(implicit(2), |w| w.write_tagged_implicit(implicit(tag), |w| w.write_null()));
        };
        match &self.payload {
            Payload::Iri { kind, contents } => w.write_tagged_implicit(implicit(0), |w| {
                w.write_sequence_of(|w| {
                    w.next().write_sequence(|w| {
                        enumerated(0, *kind as u8, w);
                        // undefinedIRI: its contents are as agreed, see docs/sorm.md.
                        w.next().write_tagged(implicit(2), |w| {
                            w.write_tagged_implicit(implicit(0), |w| w.write_bytes(contents));
                        });
                    });
                });
            }),
            Payload::Cc { direction, packet } => w.write_tagged_implicit(implicit(1), |w| {
                w.write_sequence_of(|w| {
                    w.next().write_sequence(|w| {
                        enumerated(0, *direction as u8, w);
                        w.next().write_tagged(implicit(2), |w| {
                            w.write_tagged_implicit(implicit(12), |w| {
                                w.write_sequence(|w| {
                                    // A relative object identifier has the bytes of its numbers below 128.
                                    w.next().write_tagged_implicit(implicit(0), |w| w.write_bytes(&IPMMCC));
                                    w.next().write_tagged_implicit(implicit(1), |w| w.write_bytes(packet));
                                    // ipFrame, rTP.
                                    enumerated(2, 0, w);
                                    enumerated(4, 0, w);
                                });
                            });
                        });
                    });
                });
            }),
            Payload::KeepAlive => tri(3, w),
            Payload::KeepAliveResponse => tri(4, w),
            Payload::CinReset => tri(7, w),
        }
    }

    /// Reads one PDU; fields that nothing here needs are passed over.
    pub fn read(der: &[u8]) -> ASN1Result<Self> {
        yasna::parse_ber(der, |r| {
            r.read_sequence(|r| {
                let header = r.next().read_tagged_implicit(Tag::context(1), read_header)?;
                let payload = r.next().read_tagged(Tag::context(2), read_payload)?;
                let (liid, cin, sequence, at) = header;
                Ok(Self { liid, cin, sequence, at, payload })
            })
        })
    }
}

type Header = (String, Option<u32>, u32, (i64, u32));

fn read_header(r: BERReader<'_, '_>) -> ASN1Result<Header> {
    let context = Tag::context;
    r.read_sequence(|r| {
        r.next().read_tagged_implicit(context(0), |r| r.read_oid())?;
        let liid = r.next().read_tagged_implicit(context(1), |r| r.read_bytes())?;
        r.next().read_tagged_implicit(context(2), |r| r.read_printable_string())?;
        let cin = r.next().read_tagged_implicit(context(3), |r| {
            r.read_sequence(|r| {
                r.next().read_tagged_implicit(context(0), |r| {
                    r.read_sequence(|r| {
                        r.next().read_tagged_implicit(context(0), |r| r.read_bytes())?;
                        r.read_optional(|r| r.read_tagged_implicit(context(1), |r| r.read_bytes()))?;
                        Ok(())
                    })
                })?;
                let cin = r.read_optional(|r| r.read_tagged_implicit(context(1), |r| r.read_u32()))?;
                r.read_optional(|r| r.read_tagged_implicit(context(2), |r| r.read_printable_string()))?;
                Ok(cin)
            })
        })?;
        let sequence = r.next().read_tagged_implicit(context(4), |r| r.read_u32())?;
        // Older peers have a time of text, points and qualifiers beside or instead of this one.
        r.read_optional(|r| r.read_tagged_implicit(context(5), |r| r.read_generalized_time()))?;
        r.read_optional(|r| r.read_tagged_implicit(context(6), |r| r.read_printable_string()))?;
        let at = r.read_optional(|r| {
            r.read_tagged_implicit(context(7), |r| {
                r.read_sequence(|r| {
                    let seconds = r.next().read_tagged_implicit(context(0), |r| r.read_i64())?;
                    let micros = r.next().read_tagged_implicit(context(1), |r| r.read_u32())?;
                    Ok((seconds, micros))
                })
            })
        })?;
        r.read_optional(|r| r.read_tagged_implicit(context(8), |r| r.read_enum()))?;
        Ok((String::from_utf8_lossy(&liid).into_owned(), cin, sequence, at.unwrap_or_default()))
    })
}

fn read_payload(r: BERReader<'_, '_>) -> ASN1Result<Payload> {
    let context = Tag::context;
    let invalid = || ASN1Error::new(ASN1ErrorKind::Invalid);
    let tag = r.lookahead_tag()?;
    if tag == context(0) {
        let mut all = r.read_tagged_implicit(tag, |r| {
            r.collect_sequence_of(|r| {
                r.read_sequence(|r| {
                    let kind = match r.next().read_tagged_implicit(context(0), |r| r.read_enum())? {
                        1 => IriType::Begin,
                        2 => IriType::End,
                        3 => IriType::Continue,
                        4 => IriType::Report,
                        _ => return Err(invalid()),
                    };
                    let contents = r.next().read_tagged(context(2), |r| {
                        r.read_tagged_implicit(context(0), |r| r.read_bytes())
                    })?;
                    Ok(Payload::Iri { kind, contents })
                })
            })
        })?;
        return all.pop().ok_or_else(invalid);
    }
    if tag == context(1) {
        let mut all = r.read_tagged_implicit(tag, |r| {
            r.collect_sequence_of(|r| {
                r.read_sequence(|r| {
                    let direction = match r.next().read_tagged_implicit(context(0), |r| r.read_enum())? {
                        0 => Direction::FromTarget,
                        1 => Direction::ToTarget,
                        _ => Direction::Unknown,
                    };
                    let packet = r.next().read_tagged(context(2), |r| {
                        r.read_tagged_implicit(context(12), |r| {
                            r.read_sequence(|r| {
                                r.next().read_tagged_implicit(context(0), |r| r.read_bytes())?;
                                let packet = r.next().read_tagged_implicit(context(1), |r| r.read_bytes())?;
                                r.read_optional(|r| r.read_tagged_implicit(context(2), |r| r.read_enum()))?;
                                r.read_optional(|r| r.read_tagged_implicit(context(3), |r| r.read_bytes()))?;
                                r.read_optional(|r| r.read_tagged_implicit(context(4), |r| r.read_enum()))?;
                                Ok(packet)
                            })
                        })
                    })?;
                    Ok(Payload::Cc { direction, packet })
                })
            })
        })?;
        return all.pop().ok_or_else(invalid);
    }
    r.read_tagged(context(2), |r| {
        let tag = r.lookahead_tag()?;
        let payload = match tag.tag_number {
            3 => Payload::KeepAlive,
            4 => Payload::KeepAliveResponse,
            7 => Payload::CinReset,
            _ => return Err(invalid()),
        };
        r.read_tagged_implicit(tag, |r| r.read_null())?;
        Ok(payload)
    })
}

/// Octets of the first PDU in a stream, once its length has come; `Err` where there can be none.
pub fn cut(stream: &[u8]) -> Result<Option<usize>, TooLong> {
    let length = match stream {
        [] | [_] => return Ok(None),
        [_, short, ..] if *short < 0x80 => 2 + usize::from(*short),
        [_, octets, rest @ ..] => {
            let count = usize::from(octets & 0x7F);
            if !(1..=4).contains(&count) {
                return Err(TooLong);
            }
            let Some(number) = rest.get(..count) else { return Ok(None) };
            2 + count + number.iter().fold(0usize, |n, o| n << 8 | usize::from(*o))
        }
    };
    if length > LONGEST {
        return Err(TooLong);
    }
    Ok((stream.len() >= length).then_some(length))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side sends what is no PDU")]
pub struct TooLong;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sender() -> Sender {
        Sender { country: "NZ".into(), operator: "op".into(), network_element: "ne1".into() }
    }

    #[test]
    fn the_bytes_are_as_the_standard_has_them() {
        let pdu = Pdu {
            liid: "L7".into(),
            cin: Some(258),
            sequence: 3,
            at: (1, 2),
            payload: Payload::Iri { kind: IriType::Begin, contents: b"x".to_vec() },
        };
        // Tags and lengths by hand: the header with domain, LIID, country, communication, number and time; the payload,
        // which is a CHOICE, with a sequence of one event, whose contents are a CHOICE too.
        let expected = [
            "3041",
            "a131",
            "8007",
            "04000202050111",
            "81024c37",
            "82024e5a",
            "a313",
            "a009",
            "80026f70",
            "81036e6531",
            "81020102",
            "82024e5a",
            "840103",
            "a706800101810102",
            "a20c",
            "a00a",
            "3008",
            "800101",
            "a203",
            "800178",
        ];
        assert_eq!(hex::encode(pdu.to_der(&sender())), expected.concat());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            liid in "[a-z0-9-]{1,25}", cin in prop::option::of(any::<u32>()), sequence in any::<u32>(),
            seconds in 0i64..1 << 40, micros in 0u32..1_000_000, bytes in prop::collection::vec(any::<u8>(), 1..1500), which in 0u8..6
        ) {
            let payload = match which {
                0 => Payload::KeepAlive,
                1 => Payload::KeepAliveResponse,
                2 => Payload::CinReset,
                3 => Payload::Cc { direction: Direction::ToTarget, packet: bytes },
                4 => Payload::Iri { kind: IriType::Report, contents: bytes },
                _ => Payload::Iri { kind: IriType::End, contents: bytes },
            };
            let pdu = Pdu { liid, cin, sequence, at: (seconds, micros), payload };
            let der = pdu.to_der(&sender());
            prop_assert_eq!(cut(&der), Ok(Some(der.len())));
            prop_assert_eq!(cut(&der[..der.len() - 1]), Ok(None));
            prop_assert_eq!(Pdu::read(&der).ok(), Some(pdu));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(length)) = cut(&bytes) {
                let more = [&bytes[..], &[0xFF; 5]].concat();
                prop_assert_eq!(cut(&more), Ok(Some(length)), "what follows changes nothing");
            }
            // Bytes by chance are no PDU: those of one are, whatever follows its header.
            prop_assert!(Pdu::read(&bytes).is_err() || bytes.first() == Some(&0x30));
        }
    }
}
