//! The vendors' profiles that come with openstacksdk (4.22, `openstack/config/vendors`), as far as they tell where to log
//! in: `auth`, regions, and endpoints.
//!
//! They are kept here since `profile: citycloud` alone is a whole clouds.yaml for `openstack`, and where this program runs
//! there need be no Python. Two of them (ovh, vexxhost) are no data but an address to ask; nothing is asked here before
//! anybody was named to be trusted, so they are refused by name.

use serde_json::Value;

const PROFILES: &str = r#"{
"auro": {"auth": {"auth_url": "https://api.van2.auro.io:5000/v3", "user_domain_name": "Default",
    "project_domain_name": "Default"}, "region_name": "RegionOne"},
"betacloud": {"status": "shutdown", "message": "betacloud.de has ceased business"},
"binero": {"auth": {"auth_url": "https://auth.binero.cloud:5000/v3"}, "regions": ["europe-se-1"]},
"bluebox": {"region_name": "RegionOne"},
"catalyst": {"auth": {"auth_url": "https://api.cloud.catalyst.net.nz:5000/v2.0"}, "regions": ["nz-por-1", "nz_wlg_2"]},
"citycloud": {"auth": {"auth_url": "https://{region_name}.citycloud.com:5000/v3/"},
    "regions": ["Buf1", "Fra1", "Sto2", "Kna1", "dx1", "tky1"]},
"conoha": {"auth": {"auth_url": "https://identity.{region_name}.conoha.io"}, "regions": ["sin1", "sjc1", "tyo1"]},
"dreamcompute": {"auth": {"auth_url": "https://iad2.dream.io:5000"}, "region_name": "RegionOne"},
"elastx": {"auth": {"auth_url": "https://ops.elastx.cloud:5000/v3"}, "region_name": "se-sto"},
"entercloudsuite": {"auth": {"auth_url": "https://api.entercloudsuite.com/"}, "regions": ["it-mil1", "nl-ams1", "de-fra1"]},
"fuga": {"auth": {"auth_url": "https://identity.api.fuga.io:5000", "user_domain_name": "Default",
    "project_domain_name": "Default"}, "regions": ["cystack"]},
"ibmcloud": {"status": "shutdown", "message": "the API Endpoint is no longer responsive"},
"internap": {"status": "shutdown", "message": "Internap have been rebranded as HorizonIQ"},
"limestonenetworks": {"auth": {"auth_url": "https://auth.cloud.lstn.net:5000/v3"}, "regions": ["us-dfw-1", "us-slc"]},
"otc": {"auth": {"auth_url": "https://iam.{region_name}.otc.t-systems.com/v3"}, "regions": ["eu-de", "eu-nl"],
    "interface": "public"},
"otc-swiss": {"auth": {"auth_url": "iam-pub.eu-ch2.sc.otc.t-systems.com/v3"}, "regions": ["eu-ch2"],
    "interface": "public"},
"ovh": {"profile": "https://ovhcloud.com"},
"ovh-us": {"auth": {"auth_url": "https://auth.cloud.ovh.us/", "user_domain_name": "Default",
    "project_domain_name": "Default"}, "regions": ["US-EAST-VA-1", "US-WEST-OR-1", "US-EAST-VA", "US-WEST-OR"]},
"rackspace": {"auth": {"auth_url": "https://identity.api.rackspacecloud.com/v2.0/"},
    "regions": ["DFW", "HKG", "IAD", "ORD", "SYD", "LON"],
    "block_storage_endpoint_override": "https://{region_name}.blockstorage.api.rackspacecloud.com/v2/"},
"switchcloud": {"auth": {"auth_url": "https://identity.compute.cloud.switch.ch/v3"}, "regions": ["zhw", "zhc"]},
"switchengines": {"auth": {"auth_url": "https://keystone.cloud.switch.ch:5000/v3"}, "regions": ["LS", "ZH"]},
"ultimum": {"status": "shutdown", "message": "ultimum-cloud.com has ceased business"},
"unitedstack": {"status": "shutdown", "message": "the API Endpoint is no longer responsive"},
"vexxhost": {"profile": "https://vexxhost.com"},
"zetta": {"auth": {"auth_url": "https://identity.api.zetta.io/v3"}, "regions": ["no-osl1"]}
}"#;

/// The profile of that name.
pub fn profile(name: &str) -> Option<Value> {
    let mut all: Value = serde_json::from_str(PROFILES).ok()?;
    all.get_mut(name).map(Value::take)
}

#[cfg(test)]
mod tests {
    #[test]
    fn profiles_are_there() {
        assert_eq!(super::profile("elastx").unwrap()["region_name"], "se-sto");
        assert!(super::profile("nobody").is_none());
    }
}
