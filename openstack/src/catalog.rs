//! The catalogue of services that comes with a token, and which of its addresses are used.

use serde_json::Value;

use super::answer::Service;
use super::config::{Settings, quoted};
use reqwest::Url;
use unluks::error::{Error, Result, escape};

/// An address of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: String,
    interface: String,
    region: Option<String>,
    url: String,
}

/// What a token came with.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog(Vec<Entry>);

impl Catalog {
    /// Of what Keystone answers: a list of services, each with endpoints. What has another shape is passed over.
    pub fn of(list: &Value) -> Self {
        let mut all = Vec::new();
        for service in list.as_array().into_iter().flatten() {
            let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
            let Some(kind) = text(service, "type") else { continue };
            for endpoint in service.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
                let (Some(interface), Some(url)) = (text(endpoint, "interface"), text(endpoint, "url")) else {
                    continue;
                };
                let region = text(endpoint, "region").or_else(|| text(endpoint, "region_id"));
                let interface = interface.strip_suffix("URL").unwrap_or(&interface).to_owned();
                all.push(Entry { kind: kind.clone(), interface, region, url });
            }
        }
        Self(all)
    }

    /// The address of a service with the version of its API, and its region.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) with the rule `cloud.region`, `cloud.interface` or
    /// `catalog.TYPE`, by what is missing.
    pub fn endpoint(&self, service: Service, settings: &Settings) -> Result<(Url, Option<String>)> {
        let (kinds, version) = service.parts();
        if let Some(given) = settings.endpoint_override(kinds) {
            return Ok((address(&given, version, kinds[0])?, settings.region_of(kinds)));
        }
        let of_service: Vec<&Entry> =
            kinds.iter().flat_map(|kind| self.0.iter().filter(move |entry| entry.kind == *kind)).collect();
        let region = settings.region_of(kinds);
        let in_region: Vec<&Entry> =
            of_service.iter().copied().filter(|entry| matches_region(entry, &region)).collect();
        let interfaces = settings.interfaces(kinds);
        // An address of an older version of the API is none.
        let usable = |entry: &&&Entry| entry.url.split('/').all(|part| !is_version(part) || part.starts_with(version));
        let found =
            interfaces.iter().find_map(|wanted| in_region.iter().filter(usable).find(|e| e.interface == *wanted));
        match found {
            Some(entry) => Ok((address(&entry.url, version, kinds[0])?, entry.region.clone())),
            None => Err(self.missing(service, &of_service, &in_region, region.as_deref(), &interfaces)),
        }
    }

    fn missing(
        &self,
        service: Service,
        of_service: &[&Entry],
        in_region: &[&Entry],
        region: Option<&str>,
        interfaces: &[String],
    ) -> Error {
        let name = service.name();
        let kind = service.parts().0[0];
        let wanted = region.map_or(String::new(), |region| format!(" {}", quoted(region)));
        if !self.0.is_empty() && !self.0.iter().any(|e| matches_region(e, &region.map(str::to_owned))) {
            let message = format!(
                "the cloud has no region{wanted}; there are {}",
                names(self.0.iter().map(|e| e.region.as_deref()))
            );
            return Error::invalid(message)
                .with_rule("cloud.region")
                .with_hint("set region_name, or OS_REGION_NAME, to one of these");
        }
        if of_service.is_empty() {
            let message = format!("the catalogue has no {name} ({kind})");
            let hint = match service {
                Service::KeyManager => "without Barbican the key is with whoever runs the cloud: ask them for it",
                _ => "look with: openstack catalog list",
            };
            return Error::invalid(message).with_rule(format!("catalog.{kind}")).with_hint(hint);
        }
        if in_region.is_empty() {
            let message = format!(
                "{name} is not in the region{wanted}; it is in {}",
                names(of_service.iter().map(|e| e.region.as_deref()))
            );
            return Error::invalid(message).with_rule("cloud.region").with_hint("set region_name, or OS_REGION_NAME");
        }
        let message = format!(
            "{name} has no address for the interface {}; there are {}",
            names(interfaces.iter().map(|name| Some(name.as_str()))),
            names(in_region.iter().map(|e| Some(e.interface.as_str())))
        );
        Error::invalid(message).with_rule("cloud.interface").with_hint("set interface, or OS_INTERFACE")
    }
}

fn matches_region(entry: &Entry, wanted: &Option<String>) -> bool {
    wanted.is_none() || entry.region == *wanted
}

/// Each name once, as messages show them.
fn names<'a>(all: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut names: Vec<String> = all.flatten().map(escape).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

fn address(text: &str, version: &str, kind: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let mut url = url.ok_or_else(|| {
        let message = format!("the address of {kind} is {}; an http or https address is wanted", quoted(text));
        Error::invalid(message).with_rule(format!("catalog.{kind}"))
    })?;
    let versioned = url.path_segments().is_some_and(|mut all| all.any(is_version));
    if let (false, Ok(mut segments)) = (versioned, url.path_segments_mut()) {
        segments.pop_if_empty().push(version);
    }
    url.set_query(None);
    Ok(url)
}

pub(super) fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut env: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.insert("OS_AUTH_URL".into(), "https://id.example/v3".into());
        Settings::of(None, env, &[]).unwrap()
    }

    fn catalog() -> Catalog {
        let of =
            |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "url": url});
        Catalog::of(&json!([
            {"type": "image", "endpoints": [of("public", "R1", "https://img.example"), of("internal", "R1", "http://10.0.0.1:9292/"),
                of("public", "R2", "https://img2.example/image/v2")]},
            {"type": "volumev2", "endpoints": [of("public", "R1", "https://vol.example/v2/p")]},
            {"type": "volume", "endpoints": [of("public", "R1", "https://vol.example/v1/p")]},
            {"type": "volumev3", "endpoints": [of("public", "R1", "https://vol.example/v3/p")]},
            {"type": "key-manager", "endpoints": [of("publicURL", "R1", "https://key.example")]},
            {"type": "broken"}, 7,
        ]))
    }

    fn found(pairs: &[(&str, &str)], service: Service) -> String {
        catalog().endpoint(service, &settings(pairs)).unwrap().0.to_string()
    }

    #[test]
    fn interface_and_region_choose() {
        use Service::{BlockStorage, Image, KeyManager};
        assert_eq!(found(&[], Image), "https://img.example/v2");
        for spelling in ["internal", "internalURL"] {
            assert_eq!(found(&[("OS_INTERFACE", spelling)], Image), "http://10.0.0.1:9292/v2");
            assert_eq!(found(&[("OS_ENDPOINT_TYPE", spelling)], Image), "http://10.0.0.1:9292/v2");
        }
        assert_eq!(found(&[("OS_REGION_NAME", "R2")], Image), "https://img2.example/image/v2");
        assert_eq!(found(&[], BlockStorage), "https://vol.example/v3/p");
        assert_eq!(found(&[], KeyManager), "https://key.example/v1");
        let given = [("OS_VOLUME_ENDPOINT_OVERRIDE", "http://v.example/volume/v3")];
        assert_eq!(found(&given, BlockStorage), "http://v.example/volume/v3");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |pairs: &[(&str, &str)], service| {
            let e = catalog().endpoint(service, &settings(pairs)).unwrap_err();
            (e.rule().to_owned(), e.to_string())
        };
        let (rule, text) = missing(&[("OS_REGION_NAME", "R9")], Service::KeyManager);
        assert!(rule == "cloud.region" && text.contains("R1, R2") && !text.contains("whoever runs"), "{text}");
        let (rule, text) = missing(&[("OS_REGION_NAME", "R2")], Service::KeyManager);
        assert!(rule == "cloud.region" && text.contains("it is in R1"), "{text}");
        let (rule, text) = missing(&[("OS_INTERFACE", "admin")], Service::KeyManager);
        assert!(rule == "cloud.interface" && text.contains("there are public"), "{text}");
        let e = Catalog::of(&json!([])).endpoint(Service::KeyManager, &settings(&[])).unwrap_err();
        assert_eq!(e.rule(), "catalog.key-manager");
    }
}
