//! The PROXY protocol, versions 1 and 2: a load balancer sends the address of the Client before the first byte.
//!
//! If a listener requires the header, a connection without one is closed: otherwise anybody could choose an address.
//! Exactly the header is read and not a byte more, so the socket needs no wrapper afterwards. If the header has no
//! usable address (LOCAL, UNKNOWN, a Unix socket), the address of the socket is used.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header of version 1, including the line end.
const MAX_V1_BYTES: usize = 107;

/// The shortest header of version 1 (`PROXY UNKNOWN\r\n`), which can be read without knowing the version.
const COMMON_BYTES: usize = 15;

/// The fixed part of version 2.
const V2_FIXED_BYTES: usize = 16;

/// The longest header of version 2 that we read; the protocol would allow 64 KiB of extensions, which nobody sends.
const MAX_V2_BYTES: usize = 4096;

/// Why a connection has no usable header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The connection ended or was lost.
    #[error("the connection ended within the header: {0}")]
    Read(#[from] io::Error),
    /// The first bytes are not a header.
    #[error("no PROXY protocol header")]
    Missing,
    /// The header is too long.
    #[error("a header of {0} bytes")]
    TooLong(usize),
    /// A malformed header of version 1.
    #[error("malformed header of version 1: {0}")]
    V1(v1::BinaryParseError),
    /// A malformed header of version 2.
    #[error("malformed header of version 2: {0}")]
    V2(v2::ParseError),
}

/// Reads the header. `Ok(None)`: there is one, but it does not change the address of the socket.
pub(crate) async fn read_header<S>(stream: &mut S) -> Result<Option<SocketAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut header = Vec::with_capacity(MAX_V1_BYTES);
    while header.len() < COMMON_BYTES {
        read_more(stream, &mut header, COMMON_BYTES).await?;
        // Checked at once, so that a Client that sends a short CONNECT does not have to wait for the timeout.
        if !begins_alike(&header, v1::PROTOCOL_PREFIX.as_bytes())
            && !begins_alike(&header, v2::PROTOCOL_PREFIX)
        {
            return Err(HeaderError::Missing);
        }
    }
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        read_v2(stream, header).await
    } else {
        read_v1(stream, header).await
    }
}

async fn read_v1<S>(stream: &mut S, mut header: Vec<u8>) -> Result<Option<SocketAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    // The length is only known at the end, so the rest comes byte by byte: about thirty reads, once per connection.
    while !header.ends_with(b"\n") {
        if header.len() >= MAX_V1_BYTES {
            return Err(HeaderError::TooLong(header.len()));
        }
        let length = header.len() + 1;
        read_more(stream, &mut header, length).await?;
    }
    let parsed = v1::Header::try_from(header.as_slice()).map_err(HeaderError::V1)?;
    Ok(match parsed.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

async fn read_v2<S>(stream: &mut S, mut header: Vec<u8>) -> Result<Option<SocketAddr>, HeaderError>
where
    S: AsyncRead + Unpin,
{
    fill(stream, &mut header, V2_FIXED_BYTES).await?;
    let Some(&[high, low]) = header.last_chunk::<2>() else { return Err(HeaderError::Missing) };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2_BYTES {
        return Err(HeaderError::TooLong(length));
    }
    fill(stream, &mut header, length).await?;
    let parsed = v2::Header::try_from(header.as_slice()).map_err(HeaderError::V2)?;
    Ok(match (parsed.command, parsed.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
            Some((ip.source_address, ip.source_port).into())
        }
        // With LOCAL the connection is the proxy's own, for example a health check.
        (v2::Command::Local, _)
        | (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

fn begins_alike(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

async fn fill<S>(stream: &mut S, header: &mut Vec<u8>, length: usize) -> Result<(), HeaderError>
where
    S: AsyncRead + Unpin,
{
    while header.len() < length {
        read_more(stream, header, length).await?;
    }
    Ok(())
}

/// Reads at least one byte, and at most up to this length.
async fn read_more<S>(
    stream: &mut S,
    header: &mut Vec<u8>,
    length: usize,
) -> Result<(), HeaderError>
where
    S: AsyncRead + Unpin,
{
    let missing = length.saturating_sub(header.len());
    let count = stream.take(missing as u64).read_buf(header).await?;
    if count == 0 {
        return Err(HeaderError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the header says, and what is left on the stream afterwards.
    async fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let mut stream = bytes;
        let result = read_header(&mut stream).await;
        (result, stream.to_vec())
    }

    fn v2_header(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    const CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";

    #[tokio::test]
    async fn version_1_names_the_client_and_leaves_what_follows() {
        for (header, address) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 1234 1883\r\n", Some("192.0.2.1:1234")),
            ("PROXY TCP6 2001:db8::1 ::1 65535 1883\r\n", Some("[2001:db8::1]:65535")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ff:ff ff:ff 1 1\r\n", None),
        ] {
            let (result, rest) = read(&[header.as_bytes(), CONNECT].concat()).await;
            assert_eq!(result.unwrap(), address.map(|text| text.parse().unwrap()), "{header}");
            assert_eq!(rest, CONNECT);
        }
    }

    #[tokio::test]
    async fn version_2_names_the_client_and_leaves_what_follows() {
        let ip4 = [&[192, 0, 2, 1, 198, 51, 100, 1][..], &[4, 210, 7, 91]].concat();
        let mut ip6 = vec![0; 36];
        ip6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        ip6[15] = 1;
        ip6[32..34].copy_from_slice(&[0xff, 0xff]);
        let extended = [&ip4[..], &[0xea, 0, 3, b'v', b'p', b'c']].concat();
        for (header, address) in [
            (v2_header(1, 0x11, &ip4), Some("192.0.2.1:1234")),
            (v2_header(1, 0x11, &extended), Some("192.0.2.1:1234")),
            (v2_header(1, 0x21, &ip6), Some("[2001:db8::1]:65535")),
            (v2_header(0, 0x11, &ip4), None),
            (v2_header(0, 0x00, &[]), None),
            (v2_header(1, 0x00, &[]), None),
            (v2_header(1, 0x31, &[b'x'; 216]), None),
        ] {
            let (result, rest) = read(&[&header, CONNECT].concat()).await;
            assert_eq!(result.unwrap(), address.map(|text| text.parse().unwrap()), "{header:x?}");
            assert_eq!(rest, CONNECT);
        }
    }

    #[tokio::test]
    async fn no_header_is_noticed_at_the_first_strange_byte() {
        assert!(matches!(read(CONNECT).await.0, Err(HeaderError::Missing)));
        assert!(matches!(read(b"PROXI").await.0, Err(HeaderError::Missing)));
        assert!(matches!(read(b"\r\n\r\nGET").await.0, Err(HeaderError::Missing)));
    }

    #[tokio::test]
    async fn bad_headers_are_refused() {
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        assert!(matches!(read(&long).await.0, Err(HeaderError::TooLong(MAX_V1_BYTES))));
        let nonsense = b"PROXY TCP4 192.0.2.999 198.51.100.1 1 1\r\n";
        assert!(matches!(read(nonsense).await.0, Err(HeaderError::V1(_))));
        let port = b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 1\r\n";
        assert!(matches!(read(port).await.0, Err(HeaderError::V1(_))));
        let huge = v2_header(1, 0x11, &[0; 5000]);
        assert!(matches!(read(&huge).await.0, Err(HeaderError::TooLong(5016))));
        let short = v2_header(1, 0x11, &[0; 4]);
        assert!(matches!(read(&short).await.0, Err(HeaderError::V2(_))));
        let command = v2_header(7, 0x11, &[0; 12]);
        assert!(matches!(read(&command).await.0, Err(HeaderError::V2(_))));
        assert!(matches!(read(b"PROXY TCP4 1").await.0, Err(HeaderError::Read(_))));
        assert!(matches!(read(b"").await.0, Err(HeaderError::Read(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_prefix_never_panic(
            version in 0..2_usize,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let prefix = [v1::PROTOCOL_PREFIX.as_bytes(), v2::PROTOCOL_PREFIX][version];
            let input = [prefix, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _any_answer = runtime.block_on(read(&input));
        }
    }
}
