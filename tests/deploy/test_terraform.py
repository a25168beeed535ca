"""The Terraform configuration, as far as it can be checked without an account or the provider.

Syntax, formatting and the rules of the variables are checked by Terraform itself where it is
installed; that references resolve, and that documentation and variables agree, always.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, need, run, succeed

FOLDER = ROOT / "deploy/terraform"
FILES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.tf"))}
# Comments may name what does not exist.
CODE = "\n".join(re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE) for text in FILES.values())
VARIABLES = dict(
    re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', FILES["variables.tf"], re.MULTILINE | re.DOTALL)
)
REQUIRED = {name for name, body in VARIABLES.items() if "  default" not in body}

VALID = {
    "cloud_id": "b1g0",
    "folder_id": "b1g1",
    "bucket_suffix": "example-company",
    "ssh_public_key": "ssh-ed25519 AAAA admin",
    "mlflow_image": "cr.yandex/crp/mlflow@sha256:" + "0" * 64,
}


def terraform() -> str:
    found = shutil.which("terraform")
    if not found:
        # Not to be had from Debian or a registry of packages, so not even CI insists on it.
        pytest.skip("terraform is not installed")
    return found


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("TF_")} | {
        "TF_IN_AUTOMATION": "1"
    }


def test_every_variable_is_declared_used_described_and_documented() -> None:
    used = set(re.findall(r"\bvar\.(\w+)", CODE))
    assert used == set(VARIABLES)
    for name, body in VARIABLES.items():
        assert re.search(r'^  description = ".{10,}"$', body, re.MULTILINE), name
        assert re.search(r"^  type +=", body, re.MULTILINE), name
    table = re.findall(r"^\| `(\w+)` \|(.*?)\|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert [name for name, _ in table] == list(VARIABLES)
    assert {name for name, default in table if not default.strip()} == REQUIRED
    example = (FOLDER / "terraform.tfvars.example").read_text()
    assert set(re.findall(r"^(\w+) +=", example, re.MULTILINE)) == REQUIRED == set(VALID)


def test_every_reference_leads_to_a_resource() -> None:
    declared = {
        f"{prefix}{kind}.{name}"
        for block, prefix in (("resource", ""), ("data", "data."))
        for kind, name in re.findall(rf'^{block} "(\w+)" "(\w+)"', CODE, re.MULTILINE)
    }
    used = set(re.findall(r"(?<![\w.\"-])((?:data\.)?(?:yandex|random)_\w+\.\w+)", CODE))
    assert used
    assert used <= declared, used - declared
    local = set(re.findall(r"\blocal\.(\w+)", CODE))
    assert local <= set(re.findall(r"^  (\w+) += ", CODE, re.MULTILINE))


def test_providers_are_pinned_and_hold_no_credentials() -> None:
    pins = re.findall(r'source += "(\S+)"\s+version += "(.+)"', CODE)
    assert dict(pins).keys() == {"yandex-cloud/yandex", "hashicorp/random"}
    assert all(re.fullmatch(r"~> \d+\.\d+", version) for _, version in pins)
    assert not re.search(
        r"^\s+(token|service_account_key_file|access_key|secret_key) +=", CODE, re.M
    )


def test_outputs_with_secrets_are_marked() -> None:
    outputs = re.findall(r'^output "(\w+)" \{\n(.*?)^\}', FILES["outputs.tf"], re.M | re.S)
    for name, body in outputs:
        assert "description" in body, name
        assert ("random_password" in body) == ("sensitive   = true" in body), name


def test_nothing_is_open_to_the_internet() -> None:
    assert "assign_public_ip = true" not in CODE
    assert not re.search(r"\bnat += true", CODE)
    for body in re.findall(r"^  ingress \{\n(.*?)^  \}", CODE, re.MULTILINE | re.DOTALL):
        assert "0.0.0.0/0" not in body, body


def test_state_and_values_are_not_committed() -> None:
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {"*.tfstate", "*.tfvars", ".terraform/", "backend.hcl"} <= set(ignored)


def test_terraform_reads_the_files_and_finds_them_formatted() -> None:
    succeed(terraform(), "fmt", "-check", "-recursive", "-diff", FOLDER, env=clean())


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The variables alone, which Terraform can judge without any provider."""
    (tmp_path / "variables.tf").write_text(FILES["variables.tf"])
    succeed(terraform(), "init", "-backend=false", "-no-color", cwd=tmp_path, env=clean())
    return tmp_path


def plan(folder: Path, **changes: object) -> tuple[int, str]:
    values = VALID | changes
    (folder / "terraform.tfvars.json").write_text(json.dumps(values))
    done = run(terraform(), "plan", "-no-color", "-input=false", cwd=folder, env=clean())
    return done.returncode, re.sub(r"[\s│]+", " ", done.stdout + done.stderr)


def test_variables_take_good_values_and_refuse_bad_ones(rules: Path) -> None:
    code, output = plan(rules)
    assert code == 0, output
    # One plan names all that is wrong.
    code, output = plan(
        rules,
        zone="eu-west-1",
        name="Fraud_",
        subnet_cidr="10.40",
        client_cidrs=["0.0.0.0/0"],
        bucket_suffix="a",
        archive_days=3,
        postgres_version="9",
        postgres_disk_gb=1,
        mlflow_image="cr.yandex/crp/mlflow:latest",
        mlflow_memory_gb=1,
        spark_hosts_max=0,
        ssh_public_key="-----BEGIN OPENSSH PRIVATE KEY-----",
    )
    assert code != 0
    with_rules = {name for name, body in VARIABLES.items() if "validation {" in body}
    refused = {name for name in with_rules if f"{name} must be" in output}
    assert refused == with_rules


def test_the_mlflow_hosts_start_script_is_one(tmp_path: Path) -> None:
    template = FOLDER / "templates/mlflow.yaml.tftpl"
    names = set(re.findall(r"\$\{(\w+)\}", template.read_text()))
    given = re.search(r"templatefile\(.*?\{\n(.*?)\n  \}\)", FILES["mlflow.tf"], re.DOTALL)
    assert given
    assert names == set(re.findall(r"^    (\w+) += ", given[1], re.MULTILINE))

    values = ", ".join(f'{name} = "{name}-value"' for name in sorted(names))
    expression = f'jsonencode(templatefile("{template}", {{ {values} }}))'
    (tmp_path / "in").write_text(expression)
    rendered = succeed(terraform(), "console", cwd=tmp_path, env=clean(), input=expression + "\n")
    document = yaml.safe_load(json.loads(json.loads(rendered)))
    files = {file["path"]: file["content"] for file in document["write_files"]}
    script = tmp_path / "start.sh"
    script.write_text(files["/opt/mlflow/start.sh"])
    succeed("bash", "-n", script)
    need(shutil.which("shellcheck"), "shellcheck is missing: apt-get install shellcheck")
    # A list of ids is meant to be split, and here it is one.
    succeed("shellcheck", "--exclude=SC2043", script)
    # The same settings as the compose file's service: what it reads must not be missing here.
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    secrets = set(re.findall(r'(?:key|entry_for_\w+) += "(\w+)"', CODE))
    named = set(re.findall(r"--env (\w+)=", files["/opt/mlflow/start.sh"]))
    assert set(compose["services"]["mlflow"]["environment"]) <= named | secrets
