//! How a machine becomes a member: with a token, over a connection without a certificate.

use crate::room::{CLOSED, Cluster, LONG, Machine, Stage, now_s};
use pki::token::{Record, Terms as TokenTerms, Uses, admit};
use pki::{MachineKey, NodeCertificate, Token};
use rpc::{
    Answer, AttemptError, Call, Code, ConnectError, Credentials, Failure, Guest, Handler, Identity, Method, Objection,
    Patience, Peers, Revoked, Terms, Working,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use wire::identity::Fingerprint;
use wire::join::{JoinAnswer, JoinRequest};

const YEAR_S: i64 = 365 * 86_400;

/// The member's side of joining, as the part that owns the records will have it.
struct Gate {
    cluster: Cluster,
    records: Mutex<Vec<Record>>,
}

impl Gate {
    fn join(&self, request: &[u8]) -> Result<JoinAnswer, Failure> {
        let wrong = |error: &dyn std::error::Error| Failure::new(Code::InvalidArgument, error.to_string());
        let request: JoinRequest = serde_json::from_slice(request).map_err(|error| wrong(&error))?;
        let mut records = self.records.lock().unwrap();
        let record = records.iter_mut().find(|record| record.id == request.token);
        admit(record.as_deref(), now_s(), &request.secret)
            .map_err(|refusal| Failure::new(Code::PermissionDenied, refusal.to_string()).with_hint(refusal.hint()))?;
        let (id, authority) = (&self.cluster.id, &self.cluster.authority);
        let certificate = authority.enrol(id, &request.request_pem, None, now_s()).map_err(|error| wrong(&error))?;
        record.unwrap().used += 1;
        let roots_pem = authority.certificate_pem().to_owned();
        Ok(JoinAnswer { chain_pem: certificate.pem(), roots_pem, now_ms: world::clock::unix_ms() })
    }
}

impl Handler for Gate {
    fn methods(&self) -> Vec<Method> {
        vec![Method::open_call("cluster/join"), CLOSED]
    }

    fn call(&self, call: Call) -> Working<'_, Answer> {
        Box::pin(async move { Ok(serde_json::to_vec(&self.join(&call.request)?).unwrap().into()) })
    }
}

/// A member with a token for others, and where it is.
async fn gate(uses: Uses) -> (Machine, rpc::Server, String) {
    let cluster = Cluster::new();
    let member = cluster.machine();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut random = [0; 40];
    world::random::fill(&mut random);
    let terms = TokenTerms {
        authority: cluster.authority.fingerprint(),
        addresses: vec![listener.local_addr().unwrap().to_string()],
        role: None,
        zone: None,
        expires_s: now_s() + 3_600,
        uses,
    };
    let (token, record) = Token::mint(terms, &random).unwrap();
    let gate = Gate { cluster, records: Mutex::new(vec![record]) };
    let serving = member.serve_at(listener, Arc::new(gate));
    (member, serving, token.text())
}

async fn visit(addresses: &[SocketAddr], authority: Fingerprint) -> Result<Guest, ConnectError> {
    Guest::visit(addresses, authority, Patience::default(), &meter::Meter::new()).await
}

fn addresses(token: &Token) -> Vec<SocketAddr> {
    token.terms.addresses.iter().map(|address| address.parse().unwrap()).collect()
}

async fn join(key: &MachineKey, token: &Token) -> Result<Credentials, Failure> {
    let guest = visit(&addresses(token), token.terms.authority).await.unwrap();
    let request_pem = key.request().unwrap();
    let request = JoinRequest { token: token.id.clone(), secret: token.secret(), request_pem };
    let answer = guest.call("cluster/join", serde_json::to_vec(&request).unwrap(), LONG).await.map_err(|error| {
        let hint = error.hint().to_owned();
        Failure::new(error.code(), error.to_string()).with_hint(hint)
    })?;
    let answer: JoinAnswer = serde_json::from_slice(&answer.bytes).unwrap();
    let certificate = NodeCertificate::from_pem(&answer.chain_pem).unwrap();
    assert_eq!(certificate.node, key.node());
    let roots = CertificateDer::pem_slice_iter(answer.roots_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    Ok(Credentials::new(certificate.chain, key.der(), roots).unwrap())
}

#[tokio::test]
async fn a_machine_with_a_token_becomes_a_member() {
    let (member, serving, text) = gate(Uses::Once).await;
    let token = Token::parse(&text).unwrap();
    let key = MachineKey::create().unwrap();
    let credentials = join(&key, &token).await.unwrap();
    let meter = meter::Meter::new();
    let peers = Peers::new(Identity::new(credentials), Revoked::new(), Patience::default(), &meter);
    peers.set_addresses(member.node(), &[serving.address()]);
    let error = peers.call(member.node(), "test/closed", "{}", Terms::within(LONG)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "members get as far as the method: {error:?}");
    let refused = join(&MachineKey::create().unwrap(), &token).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied);
    assert_eq!(refused.message, "the token was for one machine, which has joined");
    assert_eq!(refused.hint, "have a member print a new one");
}

#[tokio::test]
async fn many_may_join_with_one_token() {
    let (_member, _serving, text) = gate(Uses::Many).await;
    let token = Token::parse(&text).unwrap();
    for _ in 0..3 {
        join(&MachineKey::create().unwrap(), &token).await.unwrap();
    }
}

#[tokio::test]
async fn a_guest_may_do_nothing_else() {
    let (member, _serving, text) = gate(Uses::Many).await;
    let token = Token::parse(&text).unwrap();
    let guest = visit(&addresses(&token), token.terms.authority).await.unwrap();
    assert_eq!(guest.node(), member.node());
    let error = guest.call("test/closed", "", LONG).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert_eq!(error.to_string(), "test/closed is for members of the cluster");
    let error = guest.call("cluster/join", vec![0; 100_000], LONG).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
}

#[tokio::test]
async fn a_forged_member_hears_nothing() {
    let (_member, _serving, text) = gate(Uses::Many).await;
    let token = Token::parse(&text).unwrap();
    let elsewhere = Cluster::new();
    let forger = elsewhere.machine();
    let (stage, mut events) = Stage::new();
    let forged = forger.serve(stage).await;
    let error = visit(&[forged.address()], token.terms.authority).await.unwrap_err();
    let [(_, AttemptError::Objection(Objection::OtherAuthority))] = &error.attempts[..] else { panic!("{error:?}") };
    assert!(error.to_string().contains("of the authority in the token"), "{error}");
    assert!(error.attempts[0].1.hint().contains("somebody else may be answering"));
    // One that shows the right authority's certificate beside its own, which that has not signed.
    let (own, real) = (elsewhere.certify(&forger.key, now_s()), Cluster::new());
    let chain = vec![own.chain[0].clone(), real.certify(&forger.key, now_s()).chain[1].clone()];
    let credentials = Credentials::new(chain, forger.key.der(), vec![own.chain[1].clone()]).unwrap();
    forger.identity.renew(credentials).unwrap();
    let error = visit(&[forged.address()], real.authority.fingerprint()).await.unwrap_err();
    assert!(matches!(error.attempts[0].1, AttemptError::UnknownAuthority), "{error:?}");
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn the_next_address_is_asked_when_the_first_is_no_member() {
    let (_member, serving, text) = gate(Uses::Many).await;
    let token = Token::parse(&text).unwrap();
    let stranger = Cluster::new().machine();
    let (stage, _events) = Stage::new();
    let other = stranger.serve(stage).await;
    visit(&[other.address(), serving.address()], token.terms.authority).await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_is_called_one() {
    let cluster = Cluster::new();
    let check = async |skew_s: i64, expected: &str| {
        let member = cluster.machine_since(now_s() + skew_s);
        let then_ms = u64::try_from((now_s() + skew_s) * 1_000 + 500).unwrap();
        let address = crate::hostile::out_of_time(&cluster, &member.key, now_s() + skew_s, then_ms).await;
        let error = visit(&[address], cluster.authority.fingerprint()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{address}: this machine's clock is {expected} the cluster's"));
        assert!(error.attempts[0].1.hint().starts_with("set the clock"));
    };
    check(YEAR_S, "365 days behind").await;
    check(-YEAR_S, "365 days ahead of").await;
    check(13 * 3_600 + 60, "13 hours behind").await;
}

#[tokio::test]
async fn a_member_whose_certificate_ran_out_is_not_a_wrong_clock() {
    let cluster = Cluster::new();
    let member = cluster.machine_since(now_s() - YEAR_S);
    let (stage, _events) = Stage::new();
    let serving = member.serve(stage).await;
    let error = visit(&[serving.address()], cluster.authority.fingerprint()).await.unwrap_err();
    assert!(error.to_string().contains("the peer's certificate expired 358 days ago"), "{error}");
}
