//! Frames as bytes, since a round trip cannot see a symmetric mistake.

use proptest::prelude::*;

use super::*;

/// Decodes everything, in pieces of this size, the way a stream does.
fn decode(role: Role, raw: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<Demand>), Violation> {
    let mut decoder = Decoder::new(role);
    let (mut payload, mut demands) = (Vec::new(), Vec::new());
    for piece in raw.chunks(piece) {
        let mut buffer = piece.to_vec();
        let mut decoded = Decoded::default();
        while decoded.consumed_bytes < buffer.len() {
            decoder.decode(&mut buffer, &mut decoded)?;
            demands.extend(decoded.demand.take());
        }
        payload.extend_from_slice(&buffer[..decoded.payload_bytes]);
    }
    Ok((payload, demands))
}

fn refused(role: Role, raw: &[u8]) -> Violation {
    decode(role, raw, raw.len()).expect_err("must be refused")
}

#[test]
fn masked_frame_of_rfc_6455() {
    // The example of section 5.7, as a binary frame.
    let raw = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    for piece in 1..=raw.len() {
        let (payload, demands) = decode(Role::Server, &raw, piece).unwrap();
        assert_eq!(payload, b"Hello");
        assert_eq!(demands, []);
    }
    let unmasked = [0x82, 5, b'H', b'e', b'l', b'l', b'o'];
    assert_eq!(decode(Role::Client, &unmasked, 3).unwrap().0, b"Hello");
}

#[test]
fn lengths_of_every_form() {
    for (length, start) in [
        (0_usize, &[0x82, 0][..]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 0xff, 0xff]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let frame_header = header(Opcode::Binary, length as u64, None);
        assert_eq!(&frame_header[..], start);
        let raw = [&frame_header[..], &vec![7; length]].concat();
        assert_eq!(decode(Role::Client, &raw, 1000).unwrap().0, vec![7; length]);
    }
    assert_eq!(&header(Opcode::Binary, 1, Some([1, 2, 3, 4]))[..], [0x82, 0x81, 1, 2, 3, 4]);
}

#[test]
fn fragments_are_joined_and_control_frames_may_stand_between() {
    let raw = [
        &[0x02, 1, b'a'][..],
        &[0x89, 2, b'p', b'!'],
        &[0x00, 1, b'b'],
        &[0x80, 1, b'c'],
        &[0x8a, 0],
        &[0x88, 2, 0x03, 0xe8],
    ]
    .concat();
    for piece in 1..=raw.len() {
        let (payload, demands) = decode(Role::Client, &raw, piece).unwrap();
        assert_eq!(payload, b"abc");
        assert_eq!(demands, [Demand::Pong(b"p!".to_vec()), Demand::Close(Some(1000))]);
    }
    assert_eq!(decode(Role::Client, &[0x88, 0], 1).unwrap().1, [Demand::Close(None)]);
}

/// [MQTT-6.0.0-1] [MQTT311-6.0.0-1]
#[test]
fn text_frames_are_refused() {
    assert_eq!(refused(Role::Client, &[0x81, 1, b'x']), Violation::Text);
    assert_eq!(Violation::Text.close_code(), 1003);
}

#[test]
fn broken_frames_are_refused() {
    for (raw, violation) in [
        (&[0xc2, 0][..], Violation::ReservedBits),
        (&[0x83, 0], Violation::UnknownOpcode),
        (&[0x8b, 0], Violation::UnknownOpcode),
        (&[0x80, 0], Violation::Fragmentation),
        (&[0x02, 0, 0x82, 0], Violation::Fragmentation),
        (&[0x09, 0], Violation::ControlFrame),
        (&[0x89, 126, 0, 126], Violation::ControlFrame),
        (&[0x88, 1, 3], Violation::ControlFrame),
        (&[0x82, 0x80, 1, 2, 3, 4], Violation::Masking),
        (&[0x82, 126, 0, 125], Violation::Length),
        (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::Length),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
    ] {
        assert_eq!(refused(Role::Client, raw), violation, "{raw:x?}");
    }
    assert_eq!(refused(Role::Server, &[0x82, 0]), Violation::Masking);
}

#[test]
fn control_frames_are_masked_by_clients() {
    assert_eq!(control(Opcode::Pong, b"hi", None), [0x8a, 2, b'h', b'i']);
    let masked = control(Opcode::Pong, b"hi", Some([1, 1, 1, 1]));
    assert_eq!(masked, [0x8a, 0x82, 1, 1, 1, 1, b'h' ^ 1, b'i' ^ 1]);
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        key in any::<[u8; 4]>(),
        piece in 1..400_usize,
    ) {
        let mut raw = Vec::new();
        for payload in &payloads {
            raw.extend_from_slice(&header(Opcode::Binary, payload.len() as u64, Some(key)));
            let mut masked = payload.clone();
            Mask::new(key).apply(&mut masked);
            raw.extend_from_slice(&masked);
        }
        let (payload, demands) = decode(Role::Server, &raw, piece).unwrap();
        prop_assert_eq!(payload, payloads.concat());
        prop_assert!(demands.is_empty());
    }

    #[test]
    fn any_bytes_never_panic(
        raw in proptest::collection::vec(any::<u8>(), 0..400),
        piece in 1..50_usize,
        server in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let _any_answer = decode(role, &raw, piece);
    }

    #[test]
    fn masking_in_portions_equals_masking_at_once(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
        key in any::<[u8; 4]>(),
        at in 0..100_usize,
    ) {
        let mut whole = bytes.clone();
        Mask::new(key).apply(&mut whole);
        let naive: Vec<u8> = bytes.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
        prop_assert_eq!(&whole, &naive);
        let mut portions = bytes.clone();
        let (first, second) = portions.split_at_mut(at.min(bytes.len()));
        let mut mask = Mask::new(key);
        mask.apply(first);
        mask.apply(second);
        prop_assert_eq!(&portions, &naive);
        let mut advanced = Mask::new(key);
        let at = at.min(bytes.len());
        advanced.advance(at);
        let mut tail = bytes[at..].to_vec();
        advanced.apply(&mut tail);
        prop_assert_eq!(&tail[..], &naive[at..]);
    }
}
