//! `networks`, `network_mode`, `extra_hosts`, `dns_search`: how a service is reached and what it finds.

use super::Reader;
use crate::findings::Findings;
use crate::read::{At, Fields, Instead, shortened};
use crate::stack::{DEFAULT_NETWORK, Surroundings};
use std::net::IpAddr;
use wire::spec::Attachment;

const ATTACHMENT_INSTEAD: Instead = &[
    ("ipv4_address", "the service is reached by its name; its address is given out by Bramble"),
    ("ipv6_address", "the service is reached by its name; its address is given out by Bramble"),
    ("link_local_ips", "the service is reached by its name"),
    ("mac_address", "instances have no network card, but sockets"),
    ("interface_name", "instances have no network card, but sockets"),
    ("priority", "all networks of a service are reached alike"),
    ("gw_priority", "all networks of a service are reached alike"),
    ("driver_opts", "names and sockets are the same on every machine, there is no driver to set up"),
];

impl Reader<'_, '_> {
    pub(super) fn networks(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let mode = fields.take_filled("network_mode");
        let networks = fields.take("networks");
        if let (Some(mode), Some(_)) = (&mode, &networks) {
            findings.error(&mode.place, "`network_mode` and `networks` exclude each other", "keep `networks`");
        }
        let wants_default = match &mode {
            Some(mode) => self.network_mode(mode, findings),
            None => networks.is_none(),
        };
        if wants_default {
            let name = self.around.networks.get(DEFAULT_NETWORK).map(|network| network.name.clone());
            let name = name.unwrap_or_else(|| format!("{}_{DEFAULT_NETWORK}", self.stack));
            self.spec.networks.insert(name, Attachment::default());
        }
        if let Some(at) = networks {
            if at.is_list() {
                for item in at.list(findings) {
                    let Some(name) = item.filled_text(findings) else { continue };
                    self.attach(name, Attachment::default(), &item, findings);
                }
            } else {
                for (entry, at) in at.members(findings) {
                    let attachment = attachment(&at, findings);
                    self.attach(&entry.key, attachment, &at, findings);
                }
            }
        }
        if let Some(name) = self.spec.container_name.clone() {
            // Containers find each other by container name in docker, and files rely on it.
            for attachment in self.spec.networks.values_mut() {
                if name != self.name && !attachment.aliases.contains(&name) {
                    attachment.aliases.push(name.clone());
                }
            }
        }
        self.extra_hosts(fields, findings);
        self.spec.dns_search = fields.texts("dns_search", findings);
    }

    /// Whether the service is on the default network.
    fn network_mode(&self, at: &At<'_>, findings: &mut Findings) -> bool {
        let Some(text) = at.filled_text(findings) else { return false };
        match text {
            "none" => false,
            "bridge" | "default" => true,
            "host" => {
                let hint =
                    "the service has a network of its own: publish its ports, reach others by their service name";
                findings.warn(&at.place, "`network_mode: host` is not honoured", hint);
                true
            }
            shared if shared.starts_with("service:") || shared.starts_with("container:") => {
                let hint = "put both programs into one image, or let them reach each other by service name";
                findings.error(&at.place, "a service cannot share another one's network", hint);
                false
            }
            other => {
                let hint = "write `none` or `bridge`, or name networks under `networks`";
                findings.error(&at.place, format!("`{}` is not a network mode", shortened(other)), hint);
                false
            }
        }
    }

    fn attach(&mut self, name: &str, attachment: Attachment, at: &At<'_>, findings: &mut Findings) {
        let full = match self.around.networks.get(name) {
            Some(network) => network.name.clone(),
            None if name == DEFAULT_NETWORK => format!("{}_{DEFAULT_NETWORK}", self.stack),
            None => {
                let hint = Surroundings::declare_hint("networks", name, self.around.networks.keys());
                findings.error(&at.place, format!("there is no network `{}`", shortened(name)), hint);
                return;
            }
        };
        self.spec.networks.insert(full, attachment);
    }

    fn extra_hosts(&mut self, fields: &mut Fields<'_>, findings: &mut Findings) {
        let Some(at) = fields.take("extra_hosts") else { return };
        let pairs = if at.is_map() {
            let members = at.members(findings).into_iter();
            // A name may have a list of addresses; /etc/hosts is read from the top, so the first one counts.
            members
                .filter_map(|(entry, at)| {
                    let first = at.one_or_list(findings).into_iter().next()?;
                    let text = first.text(findings)?;
                    Some((entry.key.clone(), text.to_string(), first.place))
                })
                .collect()
        } else {
            let pairs = at.pairs(&['=', ':'], findings).into_iter();
            let owned =
                pairs.map(|pair| (pair.name.to_string(), pair.value.unwrap_or_default().to_string(), pair.at.place));
            owned.collect::<Vec<_>>()
        };
        for (name, address, place) in pairs {
            if address == "host-gateway" {
                let hint =
                    "publish the program's port on the machine and declare its address under `x-bramble: egress:`";
                findings.warn(&place, "`host-gateway` is not honoured: instances have no way to their machine", hint);
                continue;
            }
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || bare.parse::<IpAddr>().is_err() {
                let message = format!("`{}` is not an address for `{}`", shortened(&address), shortened(&name));
                findings.error(&place, message, "write `name:10.0.0.1`");
                continue;
            }
            self.spec.extra_hosts.insert(name, bare.to_string());
        }
    }
}

fn attachment(at: &At<'_>, findings: &mut Findings) -> Attachment {
    let mut attachment = Attachment::default();
    if at.is_null() {
        return attachment;
    }
    let Some(mut fields) = at.fields(findings) else { return attachment };
    if let Some(aliases) = fields.take("aliases") {
        attachment.aliases = aliases.texts(findings);
    }
    fields.finish(ATTACHMENT_INSTEAD, findings);
    attachment
}
