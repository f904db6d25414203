//! Devices of the file that the store does not know: registered before their first batch goes. Never: rows, batches.
//!
//! Invariant: a device that cannot be registered ends no run. It is left to the check of the batch, which rejects its rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use tidemark_client::{Client, Error, ErrorKind, v1};

use super::chunk::Chunk;
use super::refused::index_in;
use super::values::Typed;
use crate::failure::{OrFail, Outcome, Refusal};

const WHAT: &str = "cannot register the devices of the file";
/// Devices named on standard error; the rows of all of them are among the rejects.
const SAID_MAX: usize = 5;

/// Registers devices.
pub(crate) struct Registrar {
    client: Client,
    tags: BTreeMap<String, String>,
    /// Devices with which there is nothing to do: the store knows them, or refused them.
    settled: HashSet<String>,
    /// One was found to be of another type, and then all such devices were looked for.
    searched: bool,
    refused: usize,
}

impl Registrar {
    /// Asks what the store knows: devices of this type, or of all.
    pub(crate) async fn new(
        client: Client,
        device_type: Option<&str>,
        tags: BTreeMap<String, String>,
    ) -> Outcome<Registrar> {
        let settled = known(&client, device_type).await?.into_keys().collect();
        Ok(Registrar {
            client,
            tags,
            settled,
            searched: false,
            refused: 0,
        })
    }

    /// Registers what the store does not know of a chunk, and says which devices it does not take.
    pub(crate) async fn register(&mut self, chunk: &Chunk, types: &[Typed], say: impl Fn(&str)) -> Outcome {
        let mut wanted: Vec<(&str, &str)> = chunk
            .devices
            .iter()
            .filter(|(_, id)| !self.settled.contains(id))
            .map(|(device_type, id)| (types[*device_type].id.as_str(), id.as_str()))
            .collect();
        let (good, bad): (Vec<_>, Vec<_>) = wanted.iter().copied().partition(|(_, id)| is_id(id));
        wanted = good;
        for (_, id) in bad {
            self.refuse(id, "an id has letters, digits and . _ : - only, at most 64", &say);
        }
        while !wanted.is_empty() {
            let Err(error) = self.client.register_devices(self.devices(&wanted)).await else {
                break;
            };
            let Some(at) = one_device(&error).filter(|at| *at < wanted.len()) else {
                return Err(Refusal::from(error).failure(WHAT));
            };
            let (_, id) = wanted.remove(at);
            self.refuse(id, &error.message, &say);
            if error.reason == "DEVICE_TYPE_FIXED" && !std::mem::replace(&mut self.searched, true) {
                // There may be thousands more: one question finds all of them.
                let types = known(&self.client, None).await?;
                let (other, rest): (Vec<_>, Vec<_>) = wanted
                    .iter()
                    .copied()
                    .partition(|(device_type, id)| types.get(*id).is_some_and(|is| is != device_type));
                wanted = rest;
                for (device_type, id) in other {
                    self.refuse(id, &format!("it is there, and not of type {device_type}"), &say);
                }
                self.settled.extend(types.into_keys());
            }
        }
        self.settled.extend(wanted.into_iter().map(|(_, id)| id.to_owned()));
        Ok(())
    }

    fn devices(&self, wanted: &[(&str, &str)]) -> Vec<v1::Device> {
        let device = |(device_type, id): &(&str, &str)| v1::Device {
            id: (*id).to_owned(),
            device_type: (*device_type).to_owned(),
            tags: self.tags.clone(),
            ..v1::Device::default()
        };
        wanted.iter().map(device).collect()
    }

    fn refuse(&mut self, id: &str, why: &str, say: impl Fn(&str)) {
        self.settled.insert(id.to_owned());
        self.refused += 1;
        match self.refused {
            ..=SAID_MAX => say(&format!("not registered, its rows are rejected: {id} ({why})")),
            n if n == SAID_MAX + 1 => say("more devices are not registered: the file of rejects has their rows"),
            _ => {}
        }
    }
}

/// The device that an error is about alone.
fn one_device(error: &Error) -> Option<usize> {
    let alone = error.kind == ErrorKind::Fix && matches!(error.reason.as_str(), "INVALID_ID" | "DEVICE_TYPE_FIXED");
    error
        .field
        .as_deref()
        .filter(|_| alone)
        .and_then(|field| index_in(field, "devices["))
}

fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

/// Ids and types of the devices that the store knows, of a type or of all.
async fn known(client: &Client, device_type: Option<&str>) -> Outcome<HashMap<String, String>> {
    let what = "cannot list the known devices";
    let selector = device_type.map(|id| v1::Selector {
        device_type: id.to_owned(),
        ..v1::Selector::default()
    });
    let request = v1::ListDevicesRequest {
        selector,
        ..v1::ListDevicesRequest::default()
    };
    let mut answer = client.list_devices(request).await.or_fail(what)?;
    let mut known = HashMap::new();
    while let Some(message) = answer.next().await {
        let devices = message.or_fail(what)?.devices.into_iter();
        known.extend(devices.map(|device| (device.id, device.device_type)));
    }
    Ok(known)
}
