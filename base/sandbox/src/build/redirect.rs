//! One nftables rule over raw netlink: TCP to any address but loopback's goes to a port of ours.

use super::network::{FLAG_ACK, FLAG_CREATE, FLAG_REQUEST, acknowledged, attribute, message, netlink_socket};
use rustix::io::Errno;
use rustix::net::{SendFlags, netlink, send};

const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FLAG_APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const FAMILY_UNSPECIFIED: u8 = 0;
const FAMILY_IPV4: u8 = 2;
const NAME: &[u8] = b"bramble\0";

/// Installs the rule in this process's network namespace; wants CAP_NET_ADMIN there.
pub(super) fn install(port: u16) -> Result<(), Errno> {
    let socket = netlink_socket(Some(netlink::NETFILTER))?;
    let mut batch = message(BATCH_BEGIN, FLAG_REQUEST, 0, &header(FAMILY_UNSPECIFIED, NFTABLES));
    for (number, (kind, body)) in (1..).zip([(NEW_TABLE, table()), (NEW_CHAIN, chain()), (NEW_RULE, rule(port))]) {
        let flags = FLAG_REQUEST | FLAG_ACK | FLAG_CREATE | if kind == NEW_RULE { FLAG_APPEND } else { 0 };
        batch.extend(message(kind, flags, number, &body));
    }
    batch.extend(message(BATCH_END, FLAG_REQUEST, 4, &header(FAMILY_UNSPECIFIED, NFTABLES)));
    send(&socket, &batch, SendFlags::empty())?;
    // One answer for each of table, chain and rule; the first error is the batch's.
    (0..3).try_for_each(|_answer| acknowledged(&socket))
}

/// struct nfgenmsg: family, version, resource id (big endian).
fn header(family: u8, resource: u16) -> Vec<u8> {
    let mut bytes = vec![family, 0];
    bytes.extend(resource.to_be_bytes());
    bytes
}

fn table() -> Vec<u8> {
    const TABLE_NAME: u16 = 1;
    [header(FAMILY_IPV4, 0), attribute(TABLE_NAME, NAME)].concat()
}

/// `chain … { type nat hook output priority -100; }`
fn chain() -> Vec<u8> {
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    const CHAIN_HOOK: u16 = 4;
    const CHAIN_TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    const HOOK_OUTPUT: u32 = 3;
    const PRIORITY_DNAT: i32 = -100;
    let hook =
        [attribute(HOOK_NUMBER, &HOOK_OUTPUT.to_be_bytes()), attribute(HOOK_PRIORITY, &PRIORITY_DNAT.to_be_bytes())]
            .concat();
    [
        header(FAMILY_IPV4, 0),
        attribute(CHAIN_TABLE, NAME),
        attribute(CHAIN_NAME, NAME),
        attribute(CHAIN_HOOK | NESTED, &hook),
        attribute(CHAIN_TYPE, b"nat\0"),
    ]
    .concat()
}

/// `meta l4proto tcp ip daddr != 127.0.0.0/8 redirect to :port`
fn rule(port: u16) -> Vec<u8> {
    const RULE_TABLE: u16 = 1;
    const RULE_CHAIN: u16 = 2;
    const RULE_EXPRESSIONS: u16 = 4;
    const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
    const META_L4PROTO: u32 = 16;
    const PAYLOAD_NETWORK_HEADER: u32 = 1;
    const IPV4_DESTINATION_OFFSET: u32 = 16;
    const EQUAL: u32 = 0;
    const NOT_EQUAL: u32 = 1;
    const TCP: u8 = 6;
    let one = 1_u32.to_be_bytes();
    let four = 4_u32.to_be_bytes();
    let expressions = [
        // meta load l4proto => register
        expression(b"meta\0", &[attribute(1, &REGISTER), attribute(2, &META_L4PROTO.to_be_bytes())]),
        compare(EQUAL, &[TCP]),
        // payload load 4 bytes of the network header at 16 => register
        expression(
            b"payload\0",
            &[
                attribute(1, &REGISTER),
                attribute(2, &PAYLOAD_NETWORK_HEADER.to_be_bytes()),
                attribute(3, &IPV4_DESTINATION_OFFSET.to_be_bytes()),
                attribute(4, &four),
            ],
        ),
        // register = register & 255.0.0.0 ^ 0.0.0.0
        expression(
            b"bitwise\0",
            &[
                attribute(1, &REGISTER),
                attribute(2, &REGISTER),
                attribute(3, &four),
                attribute(4 | NESTED, &data(&[255, 0, 0, 0])),
                attribute(5 | NESTED, &data(&[0, 0, 0, 0])),
            ],
        ),
        compare(NOT_EQUAL, &[127, 0, 0, 0]),
        expression(b"immediate\0", &[attribute(1, &REGISTER), attribute(2 | NESTED, &data(&port.to_be_bytes()))]),
        expression(b"redir\0", &[attribute(1, &one)]),
    ]
    .concat();
    [
        header(FAMILY_IPV4, 0),
        attribute(RULE_TABLE, NAME),
        attribute(RULE_CHAIN, NAME),
        attribute(RULE_EXPRESSIONS | NESTED, &expressions),
    ]
    .concat()
}

fn compare(operation: u32, value: &[u8]) -> Vec<u8> {
    let register = 1_u32.to_be_bytes();
    expression(
        b"cmp\0",
        &[attribute(1, &register), attribute(2, &operation.to_be_bytes()), attribute(3 | NESTED, &data(value))],
    )
}

fn data(value: &[u8]) -> Vec<u8> {
    const VALUE: u16 = 1;
    attribute(VALUE, value)
}

fn expression(name: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    const LIST_ELEMENT: u16 = 1;
    const EXPRESSION_NAME: u16 = 1;
    const EXPRESSION_DATA: u16 = 2;
    let body = [attribute(EXPRESSION_NAME, name), attribute(EXPRESSION_DATA | NESTED, &attributes.concat())].concat();
    attribute(LIST_ELEMENT | NESTED, &body)
}
