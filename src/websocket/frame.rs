//! WebSocket frames (RFC 6455), decoded in place from whatever a read returned.
//!
//! [`Decoder`] turns raw bytes into payload bytes inside the caller's own buffer: it keeps no data except an incomplete
//! header and the few bytes of a control frame. So an idle connection costs nothing, a frame may have any length, and
//! packets may be split and joined across frames. [MQTT-6.0.0-2]

use smallvec::SmallVec;

/// Our side of the connection, which decides who masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Incoming frames must be masked, outgoing frames must not be.
    Server,
    /// The other way round.
    Client,
}

/// The longest header: flags, length of 64 bits, mask.
pub(crate) const MAX_HEADER_BYTES: usize = 14;

/// The longest payload of a control frame.
const MAX_CONTROL_BYTES: usize = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTROL: u8 = 0x08;
const LENGTH_IN_16_BITS: u8 = 0x7e;
const LENGTH_IN_64_BITS: u8 = 0x7f;

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    /// Continues a message.
    Continuation = 0x0,
    /// Never used by MQTT.
    Text = 0x1,
    /// MQTT.
    Binary = 0x2,
    /// The last frame of its direction.
    Close = 0x8,
    /// Requests a [`Self::Pong`].
    Ping = 0x9,
    /// Answers a [`Self::Ping`], or is unsolicited.
    Pong = 0xa,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self as u8 & CONTROL != 0
    }
}

/// A violation of the protocol by the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A text frame. [MQTT-6.0.0-1] [MQTT311-6.0.0-1]
    #[error("a text frame")]
    Text,
    /// An extension that was not agreed on.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that does not exist.
    #[error("an unknown opcode")]
    UnknownOpcode,
    /// A message inside a message, or a continuation without a message.
    #[error("fragments out of order")]
    Fragmentation,
    /// A control frame in fragments, or too long, or a Close with half a code.
    #[error("a malformed control frame")]
    ControlFrame,
    /// A Client must mask and a server must not.
    #[error("wrong masking")]
    Masking,
    /// A length of more than 63 bits, or written longer than necessary.
    #[error("a malformed length")]
    Length,
    /// More than any packet of MQTT has.
    #[error("a frame of {0} bytes")]
    TooLong(u64),
}

/// The longest frame of data: as long as the longest packet of MQTT. Nothing is kept of a frame, but whoever announces
/// more can only mean harm.
const MAX_FRAME_BYTES: u64 = 268_435_460;

/// Why a stream that broke no rule of WebSocket is shut down. A Client of 3.x hears it nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloseCause {
    /// It has done what it was for, or whatever lies above has said why.
    #[default]
    Normal,
    /// The server stops.
    GoingAway,
    /// What was sent is larger than what lies above takes.
    TooLarge,
}

impl CloseCause {
    /// The code for our Close frame.
    #[must_use]
    pub(crate) const fn close_code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::TooLarge => 1009,
        }
    }
}

impl Violation {
    /// The code for our Close frame.
    #[must_use]
    pub(crate) const fn close_code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::ReservedBits
            | Self::UnknownOpcode
            | Self::Fragmentation
            | Self::ControlFrame
            | Self::Masking
            | Self::Length => 1002,
            Self::TooLong(_) => 1009,
        }
    }
}

/// What a control frame requires of us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Answer with these bytes.
    Pong(Vec<u8>),
    /// The other side closes; answer with this code, if it sent one.
    Close(Option<u16>),
}

/// Decodes the frames of one direction.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Our own role: frames come from the other side.
    role: Role,
    /// Within a message of several frames.
    fragmented: bool,
    part: Part,
}

#[derive(Debug)]
enum Part {
    /// The header so far.
    Header(SmallVec<[u8; MAX_HEADER_BYTES]>),
    /// Payload of a data frame.
    Data { left: u64, mask: Mask },
    /// Payload of a control frame.
    Control { opcode: Opcode, left: usize, mask: Mask, payload: Vec<u8> },
}

/// What one call of [`Decoder::decode`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The number of payload bytes at the start of the buffer.
    pub(crate) payload_bytes: usize,
    /// Raw bytes consumed. Less than all of them only after a demand.
    pub(crate) consumed_bytes: usize,
    /// What must be answered before decoding continues.
    pub(crate) demand: Option<Demand>,
}

impl Decoder {
    /// Creates a decoder at the beginning of a frame.
    #[must_use]
    pub(crate) fn new(role: Role) -> Self {
        Self { role, fragmented: false, part: Part::Header(SmallVec::new()) }
    }

    /// Decodes `bytes` from `consumed` on, and moves the payload to `payload` and after. Stops at a demand.
    pub(crate) fn decode(&mut self, bytes: &mut [u8], from: &mut Decoded) -> Result<(), Violation> {
        from.demand = None;
        while let Some(raw) = bytes.get_mut(from.consumed_bytes..)
            && !raw.is_empty()
        {
            match &mut self.part {
                Part::Header(header) => {
                    let [first, ..] = *raw else { break };
                    header.push(first);
                    from.consumed_bytes += 1;
                    if let Some(header) = Header::parse(header)? {
                        from.demand = self.begin(&header)?;
                    }
                }
                Part::Data { left, mask } => {
                    let count = raw.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    mask.apply(raw.split_at_mut(count).0);
                    *left -= count as u64;
                    let end = from.consumed_bytes + count;
                    bytes.copy_within(from.consumed_bytes..end, from.payload_bytes);
                    from.payload_bytes += count;
                    from.consumed_bytes = end;
                    if *left == 0 {
                        self.part = Part::Header(SmallVec::new());
                    }
                }
                Part::Control { left, mask, payload, .. } => {
                    let portion = raw.split_at_mut((*left).min(raw.len())).0;
                    mask.apply(portion);
                    payload.extend_from_slice(portion);
                    *left -= portion.len();
                    from.consumed_bytes += portion.len();
                    if *left == 0 {
                        from.demand = self.end_control()?;
                    }
                }
            }
            if from.demand.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Handles a complete header: its payload follows. An empty control frame is complete as well.
    fn begin(&mut self, header: &Header) -> Result<Option<Demand>, Violation> {
        let Header { is_final, opcode, mask, length } = *header;
        if mask.is_some() != (self.role == Role::Server) {
            return Err(Violation::Masking);
        }
        let mask = Mask::new(mask.unwrap_or_default());
        if opcode.is_control() {
            let left = usize::try_from(length).unwrap_or(usize::MAX);
            if !is_final || left > MAX_CONTROL_BYTES {
                return Err(Violation::ControlFrame);
            }
            self.part = Part::Control { opcode, left, mask, payload: Vec::with_capacity(left) };
            return if left == 0 { self.end_control() } else { Ok(None) };
        }
        if length > MAX_FRAME_BYTES {
            return Err(Violation::TooLong(length));
        }
        match opcode {
            Opcode::Text => return Err(Violation::Text),
            Opcode::Continuation if !self.fragmented => return Err(Violation::Fragmentation),
            Opcode::Binary if self.fragmented => return Err(Violation::Fragmentation),
            _ => self.fragmented = !is_final,
        }
        self.part = match length {
            0 => Part::Header(SmallVec::new()),
            left => Part::Data { left, mask },
        };
        Ok(None)
    }

    fn end_control(&mut self) -> Result<Option<Demand>, Violation> {
        let next = Part::Header(SmallVec::new());
        let Part::Control { opcode, payload, .. } = std::mem::replace(&mut self.part, next) else {
            return Ok(None);
        };
        match opcode {
            Opcode::Ping => Ok(Some(Demand::Pong(payload))),
            Opcode::Close => match payload.first_chunk::<2>() {
                Some(code) => Ok(Some(Demand::Close(Some(u16::from_be_bytes(*code))))),
                None if payload.is_empty() => Ok(Some(Demand::Close(None))),
                None => Err(Violation::ControlFrame),
            },
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => Ok(None),
        }
    }
}

struct Header {
    is_final: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl Header {
    /// `None` while bytes are missing.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [flags, length, rest @ ..] = bytes else { return Ok(None) };
        if flags & RESERVED != 0 {
            return Err(Violation::ReservedBits);
        }
        let opcode = Opcode::from_bits(flags & OPCODE).ok_or(Violation::UnknownOpcode)?;
        let (length, rest) = match (length & !MASKED, rest) {
            (LENGTH_IN_16_BITS, [high, low, rest @ ..]) => {
                let length = u64::from(u16::from_be_bytes([*high, *low]));
                (Self::at_least(length, 126)?, rest)
            }
            (LENGTH_IN_64_BITS, rest) => {
                let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                let length = u64::from_be_bytes(*bytes);
                (Self::at_least(length, 1 << 16)?, rest)
            }
            (LENGTH_IN_16_BITS, _) => return Ok(None),
            (short, rest) => (u64::from(short), rest),
        };
        let mask = if bytes.get(1).is_some_and(|byte| byte & MASKED != 0) {
            let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
            Some(*mask)
        } else {
            None
        };
        Ok(Some(Self { is_final: flags & FINAL != 0, opcode, mask, length }))
    }

    fn at_least(length: u64, least: u64) -> Result<u64, Violation> {
        let fits = (least..1 << 63).contains(&length);
        if fits { Ok(length) } else { Err(Violation::Length) }
    }
}

/// A masking key, rotated to the next byte.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mask {
    key: [u8; 4],
}

impl Mask {
    /// At the first byte of a payload.
    #[must_use]
    pub(crate) const fn new(key: [u8; 4]) -> Self {
        Self { key }
    }

    /// Masks (or unmasks, which is the same), and rotates by as many bytes.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        let key = u32::from_ne_bytes(self.key);
        let (words, rest) = bytes.as_chunks_mut::<4>();
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(self.key) {
            *byte ^= key;
        }
        self.key.rotate_left(rest.len());
    }

    /// Rotates without masking.
    pub(crate) fn advance(&mut self, count: usize) {
        self.key.rotate_left(count % 4);
    }
}

/// The shortest header of a final frame.
#[must_use]
pub(crate) fn header(
    opcode: Opcode,
    length: u64,
    mask: Option<[u8; 4]>,
) -> SmallVec<[u8; MAX_HEADER_BYTES]> {
    let masked = if mask.is_some() { MASKED } else { 0 };
    let mut bytes = SmallVec::new();
    bytes.push(FINAL | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..LENGTH_IN_16_BITS), _) => bytes.push(masked | short),
        (_, Ok(medium)) => {
            bytes.push(masked | LENGTH_IN_16_BITS);
            bytes.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            bytes.push(masked | LENGTH_IN_64_BITS);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(mask.as_ref().map_or(&[][..], |mask| &mask[..]));
    bytes
}

/// A complete control frame.
#[must_use]
pub(crate) fn control(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = payload.get(..MAX_CONTROL_BYTES).unwrap_or(payload);
    let mut frame = header(opcode, payload.len() as u64, mask).into_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    if let (Some(mask), Some(payload)) = (mask, frame.get_mut(start..)) {
        Mask::new(mask).apply(payload);
    }
    frame
}

#[cfg(test)]
mod tests;
