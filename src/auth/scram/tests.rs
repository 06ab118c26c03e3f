//! The example of RFC 7677 section 3, both sides against each other, and input that must be refused.

use proptest::prelude::*;

use super::*;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &[u8] =
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

struct OneUser;

impl Verifiers for OneUser {
    fn verifier(&self, user_name: &str) -> Verifier {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        match user_name {
            "user" | "a,b=c" => Verifier::new("pencil", &salt, 4096).unwrap(),
            _ => Verifier::fake(user_name, b"secret", 4096),
        }
    }
}

fn server(nonce: &str) -> ScramServer<OneUser> {
    ScramServer { nonce: Some(nonce.to_owned()), ..ScramServer::new(OneUser) }
}

fn refused() -> ExchangeStep {
    ExchangeStep::Refuse(ReasonCode::NotAuthorized)
}

#[test]
fn the_server_follows_the_example_of_the_rfc() {
    let mut server = server(SERVER_NONCE);
    assert_eq!(server.step(CLIENT_FIRST), ExchangeStep::Continue(SERVER_FIRST.to_vec()));
    let principal = Principal { user_name: Some("user".into()) };
    let accepted = ExchangeStep::Accept(principal, Some(SERVER_FINAL.to_vec()));
    assert_eq!(server.step(CLIENT_FINAL), accepted);
    assert_eq!(server.step(CLIENT_FINAL), refused(), "over is over");
}

#[test]
fn the_client_follows_the_example_of_the_rfc() {
    let mut client = ScramClient::with_nonce("user", "pencil", CLIENT_NONCE.into()).unwrap();
    assert_eq!(client.first(), CLIENT_FIRST);
    assert_eq!(client.step(SERVER_FIRST), Ok(ClientStep::Send(CLIENT_FINAL.to_vec())));
    assert_eq!(client.step(SERVER_FINAL), Ok(ClientStep::Done));
}

fn converse(user_name: &str, password: &str) -> ExchangeStep {
    let mut client = ScramClient::new(user_name, password).unwrap();
    let mut server = ScramServer::new(OneUser);
    let ExchangeStep::Continue(challenge) = server.step(&client.first()) else {
        return refused();
    };
    let Ok(ClientStep::Send(proof)) = client.step(&challenge) else { panic!("no proof") };
    let outcome = server.step(&proof);
    if let ExchangeStep::Accept(_, Some(signature)) = &outcome {
        assert_eq!(client.step(signature), Ok(ClientStep::Done));
    }
    outcome
}

#[test]
fn only_the_right_password_of_a_known_user_is_accepted() {
    assert!(matches!(converse("user", "pencil"), ExchangeStep::Accept(..)));
    assert!(matches!(converse("a,b=c", "pencil"), ExchangeStep::Accept(..)));
    assert_eq!(converse("user", "pencil "), refused());
    assert_eq!(converse("nobody", "pencil"), refused());
}

#[test]
fn an_unknown_user_gets_the_same_salt_each_time() {
    let salt = |nonce: &str| match server(nonce).step(b"n,,n=nobody,r=abc") {
        ExchangeStep::Continue(challenge) => {
            let text = String::from_utf8(challenge).unwrap();
            text.split(',').nth(1).unwrap().to_owned()
        }
        step => panic!("{step:?}"),
    };
    assert_eq!(salt("1"), salt("2"));
}

#[test]
fn an_empty_first_message_asks_for_one() {
    let mut server = server(SERVER_NONCE);
    assert_eq!(server.step(b""), ExchangeStep::Continue(Vec::new()));
    assert_eq!(server.step(CLIENT_FIRST), ExchangeStep::Continue(SERVER_FIRST.to_vec()));
}

#[test]
fn malformed_first_messages_are_refused() {
    let cases: [&[u8]; 12] = [
        b"p=tls-unique,,n=user,r=abc",
        b"n,a=admin,n=user,r=abc",
        b"n,,m=ext,n=user,r=abc",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=user",
        b"n,",
        b"x,,n=user,r=abc",
        b"n,,n=\xFF,r=abc",
        b"n,,n=a\x07b,r=abc",
    ];
    for case in cases {
        assert_eq!(server("x").step(case), refused(), "{}", String::from_utf8_lossy(case));
    }
    let long = format!("n,,n=user,r={}", "a".repeat(MAX_MESSAGE_BYTES));
    assert_eq!(server("x").step(long.as_bytes()), refused());
}

#[test]
fn changed_final_messages_are_refused() {
    let good = String::from_utf8(CLIENT_FINAL.to_vec()).unwrap();
    let cases = [
        good.replace("c=biws", "c=eSws"),
        good.replace("r=rOpr", "r=rOps"),
        good.replace("p=dHz", "p=dHy"),
        good.replace(",p=", ",x=1,p="),
        good.replace(",p=", ",q="),
        String::new(),
    ];
    for case in cases {
        let mut server = server(SERVER_NONCE);
        server.step(CLIENT_FIRST);
        assert_eq!(server.step(case.as_bytes()), refused(), "{case}");
    }
}

#[test]
fn the_client_refuses_a_dishonest_server() {
    let step = |challenge: &str| {
        ScramClient::with_nonce("user", "pencil", CLIENT_NONCE.into())
            .unwrap()
            .step(challenge.as_bytes())
    };
    let good = String::from_utf8(SERVER_FIRST.to_vec()).unwrap();
    assert_eq!(step(&good.replace("r=rO", "r=rP")), Err(ScramError::Malformed));
    assert_eq!(step(&format!("r={CLIENT_NONCE},s=AAAA,i=4096")), Err(ScramError::Malformed));
    assert_eq!(step(&good.replace("i=4096", "i=1")), Err(ScramError::Iterations));
    assert_eq!(step(&good.replace("i=4096", "i=4000000000")), Err(ScramError::Iterations));
    assert_eq!(step("e=other-error"), Err(ScramError::Malformed));

    let mut client = ScramClient::with_nonce("user", "pencil", CLIENT_NONCE.into()).unwrap();
    client.step(SERVER_FIRST).unwrap();
    assert_eq!(client.step(b"v=AAAA"), Err(ScramError::WrongSignature));
}

#[test]
fn a_verifier_survives_its_text_form() {
    let verifier = Verifier::new("pencil", b"salt", 4096).unwrap();
    assert_eq!(Verifier::parse(&verifier.to_text()), Some(verifier));
    for text in ["", "SCRAM-SHA-1$1$AA==$AA==$AA==", "SCRAM-SHA-256$x$AA==$AA==$AA=="] {
        assert_eq!(Verifier::parse(text), None, "{text}");
    }
}

/// Names and passwords are compared after preparation: the ligature and its letters are the same. RFC 4013
#[test]
fn passwords_are_prepared() {
    assert_eq!(Verifier::new("\u{FB01}", b"s", 1), Verifier::new("fi", b"s", 1));
    assert_eq!(Verifier::new("\u{7}", b"s", 1), None);
}

proptest! {
    /// Arbitrary bytes from the network make neither side panic, and are not accepted.
    #[test]
    fn no_bytes_panic(first in "(n,,n=user,r=)?[ -~]{0,40}", second: Vec<u8>, third: Vec<u8>) {
        let mut server = server("x");
        for data in [first.as_bytes(), &second, &third] {
            prop_assert!(!matches!(server.step(data), ExchangeStep::Accept(..)));
        }
        let mut client = ScramClient::with_nonce("user", "pencil", CLIENT_NONCE.into()).unwrap();
        for data in [first.as_bytes(), &second, &third] {
            prop_assert_ne!(client.step(data), Ok(ClientStep::Done));
        }
    }
}
