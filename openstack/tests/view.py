"""openstacksdk's own merged view of clouds.yaml and variables, for tests/config.rs.

Reads a list of cases as JSON from the standard input; each has "files" (name: text), "env" and "cloud". Writes a list of
views, or of {"error": …}. Each case runs in a process of its own, in which the SDK looks for its folders anew.
"""
import importlib
import json
import logging
import os
import sys
import tempfile
import warnings

from openstack.config import loader

AUTH = """auth_url username user_id user_domain_id user_domain_name password project_id project_name project_domain_id
project_domain_name domain_id domain_name token passcode application_credential_id application_credential_name
application_credential_secret trust_id system_scope""".split()


def view(cloud):
    region = importlib.reload(loader).OpenStackConfig().get_one(cloud=cloud)
    config = region.config
    verify, cert = region.get_requests_verify_args()
    kinds = ("image", "key-manager", "block-storage")

    def interfaces(kind):
        interface = region.get_interface(kind)
        return interface if isinstance(interface, list) else [interface or "public"]

    return {
        "auth": {k: str(v) for k, v in config["auth"].items() if k in AUTH and v not in (None, "")},
        "auth_type": config["auth_type"],
        "auth_methods": config["auth"].get("auth_methods") or [],
        "regions": [region.get_region_name(kind) or None for kind in kinds],
        "interfaces": [interfaces(kind) for kind in kinds],
        "verify": bool(verify),
        "cacert": verify if isinstance(verify, str) else None,
        "cert": list(cert) if isinstance(cert, tuple) else ([cert, None] if cert else None),
        "overrides": [region.get_endpoint(kind) for kind in kinds],
    }


def child(case, folder, to):
    for name in [name for name in os.environ if name.startswith(("OS_", "XDG_"))]:
        del os.environ[name]
    os.environ["HOME"] = folder
    os.environ.update({name: value.replace("{cwd}", folder) for name, value in case["env"].items()})
    os.chdir(folder)
    try:
        seen = view(case["cloud"])
    except Exception as e:
        seen = {"error": f"{type(e).__name__}: {e}"}
    with os.fdopen(to, "w") as file:
        json.dump(seen, file)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    views = []
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in case["files"].items():
                with open(os.path.join(folder, name), "w", newline="") as file:
                    file.write(text)
            ours, theirs = os.pipe()
            if os.fork() == 0:
                child(case, folder, theirs)
                os._exit(0)
            os.close(theirs)
            with os.fdopen(ours) as file:
                views.append(json.load(file))
            os.wait()
    json.dump(views, sys.stdout)


main()
