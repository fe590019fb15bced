"""openstacksdk's own merged view of clouds.yaml and variables, for tests/config.rs.

Reads a list of cases as JSON from the standard input; each has "files" (name: text), "env" and "cloud". Writes a list of
views, or of {"error": …}. Each case runs in a process of its own: the SDK keeps what it read.
"""
import json
import os
import subprocess
import sys
import tempfile

AUTH = """auth_url username user_id user_domain_id user_domain_name password project_id project_name project_domain_id
project_domain_name domain_id domain_name token passcode application_credential_id application_credential_name
application_credential_secret trust_id system_scope""".split()


def view(cloud):
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    from openstack.config import OpenStackConfig

    region = OpenStackConfig().get_one(cloud=cloud)
    config = region.config
    verify, cert = region.get_requests_verify_args()
    interface = region.get_interface("image")
    return {
        "auth": {k: str(v) for k, v in config["auth"].items() if k in AUTH and v not in (None, "")},
        "auth_type": config["auth_type"],
        "region": region.get_region_name("image") or None,
        "interface": interface if isinstance(interface, list) else [interface or "public"],
        "verify": bool(verify),
        "cacert": verify if isinstance(verify, str) else None,
        "cert": list(cert) if isinstance(cert, tuple) else ([cert, None] if cert else None),
        "overrides": [region.get_endpoint(s) for s in ("image", "key-manager", "block-storage")],
    }


def main():
    if len(sys.argv) > 1:
        try:
            print(json.dumps(view(json.loads(sys.argv[1]))))
        except Exception as e:
            print(json.dumps({"error": f"{type(e).__name__}: {e}"}))
        return
    views = []
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in case["files"].items():
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text)
            env = {k: v for k, v in os.environ.items() if not k.startswith("OS_") and not k.startswith("XDG_")}
            env.update(HOME=folder, **case["env"])
            command = [sys.executable, os.path.abspath(__file__), json.dumps(case["cloud"])]
            out = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
            views.append(json.loads(out.stdout.strip().splitlines()[-1]))
    json.dump(views, sys.stdout)


main()
