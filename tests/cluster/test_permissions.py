"""What each ServiceAccount may do, which is nothing but for the one that has to watch its own objects."""

import json
from typing import Any

import pytest

from lab.kubectl import Kubectl
from tests.cluster.deployment import NAMESPACES, Deployed

TRAEFIK = ("inventory-edge", "traefik")

# (verb, group, resource, namespace): what Traefik needs, and what it must not have although it is near.
ALLOWED_TO_TRAEFIK = [
    ("list", "", "services", "inventory-edge"),
    ("watch", "", "secrets", "inventory-edge"),
    ("list", "discovery.k8s.io", "endpointslices", "inventory-edge"),
    ("watch", "gateway.networking.k8s.io", "httproutes", "inventory-edge"),
    ("update", "gateway.networking.k8s.io", "gateways/status", "inventory-edge"),
    ("list", "", "namespaces", ""),
    ("watch", "gateway.networking.k8s.io", "gatewayclasses", ""),
]
DENIED_TO_TRAEFIK = [
    ("get", "", "secrets", "inventory-system"),
    ("list", "", "secrets", ""),
    ("list", "", "services", "inventory-system"),
    ("update", "gateway.networking.k8s.io", "gateways", "inventory-edge"),
    ("patch", "", "secrets", "inventory-edge"),
]
# What nobody of ours may do, Traefik included.
DENIED_TO_ALL = [
    *((verb, "", "secrets", "inventory-system") for verb in ("get", "list", "watch", "create", "delete")),
    *((verb, "", "pods", "inventory-system") for verb in ("get", "list", "create", "delete", "patch")),
    ("create", "", "pods/exec", "inventory-system"),
    ("create", "", "pods/ephemeralcontainers", "inventory-system"),
    ("create", "", "serviceaccounts/token", "inventory-system"),
    ("get", "", "configmaps", "inventory-system"),
    ("patch", "apps", "deployments", "inventory-system"),
    ("create", "batch", "jobs", "inventory-system"),
    ("delete", "networking.k8s.io", "networkpolicies", "inventory-system"),
    ("create", "rbac.authorization.k8s.io", "rolebindings", "inventory-system"),
    ("bind", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("impersonate", "", "users", ""),
    ("list", "", "nodes", ""),
    ("get", "", "nodes/proxy", ""),
    ("patch", "", "namespaces", ""),
    ("*", "*", "*", ""),
]

Question = tuple[str, str, str, str]


def test_every_workload_has_an_account_of_its_own(kubectl: Kubectl, deployed: Deployed) -> None:
    owners: dict[tuple[str, str], set[str]] = {}
    for namespace in NAMESPACES:
        for pod in kubectl.get("pods", f"--namespace={namespace}"):
            account = (namespace, pod["spec"]["serviceAccountName"])
            owners.setdefault(account, set()).add(pod["metadata"]["labels"]["app"])
    assert len(owners) >= 9
    assert all(len(apps) == 1 for apps in owners.values())
    assert not any(name == "default" for _, name in owners)


def test_nobody_may_do_what_only_people_do(kubectl: Kubectl, deployed: Deployed) -> None:
    accounts = _list_accounts(kubectl)
    assert len(accounts) >= 11
    granted = {account: _ask(kubectl, account, DENIED_TO_ALL) for account in accounts}
    assert granted == {account: [] for account in accounts}


def test_traefik_may_watch_what_it_serves_and_no_more(kubectl: Kubectl, deployed: Deployed) -> None:
    assert _ask(kubectl, TRAEFIK, ALLOWED_TO_TRAEFIK + DENIED_TO_TRAEFIK) == ALLOWED_TO_TRAEFIK


def test_no_other_account_may_do_anything_at_all(kubectl: Kubectl, deployed: Deployed) -> None:
    """Not a list of questions, which always leaves one out, but all rules that the API server finds for an account."""
    for account in _list_accounts(kubectl):
        rules = _list_rules(kubectl, account)
        assert bool(rules) == (account == TRAEFIK), account


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_an_account_that_is_told_yes_is_noticed(kubectl: Kubectl, deployed: Deployed, namespace: str) -> None:
    """The two tests above would pass for ever if they asked wrongly: give one account a right, and see them see it."""
    account = (namespace, "default")
    name, scope = "told-yes", f"--namespace={namespace}"
    kubectl("create", "role", name, "--verb=get", "--resource=configmaps", scope)
    try:
        kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={namespace}:default", scope)
        question = ("get", "", "configmaps", namespace)
        kubectl.wait_until(lambda _: _ask(kubectl, account, [question]) == [question], "granted right", 10)
        assert _list_rules(kubectl, account)
    finally:
        kubectl("delete", "role,rolebinding", name, scope)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_only_traefik_carries_a_token(kubectl: Kubectl, deployed: Deployed, namespace: str) -> None:
    carriers = {
        pod["metadata"]["labels"]["app"]
        for pod in kubectl.get("pods", f"--namespace={namespace}")
        for volume in pod["spec"].get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    assert carriers == ({"traefik"} if namespace == "inventory-edge" else set())


def _list_accounts(kubectl: Kubectl) -> list[tuple[str, str]]:
    found = [(n, item["metadata"]["name"]) for n in NAMESPACES for item in kubectl.get("sa", f"--namespace={n}")]
    assert TRAEFIK in found
    return found


def _ask(kubectl: Kubectl, account: tuple[str, str], questions: list[Question]) -> list[Question]:
    """Which of them the API server's authorizer answers with yes, all asked in one go."""
    user = f"system:serviceaccount:{account[0]}:{account[1]}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}", "system:authenticated"]
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": _describe(question)},
        }
        for question in questions
    ]
    content = "\n---\n".join(map(json.dumps, reviews))
    answers = _split(kubectl("create", "--filename=-", "--output=json", content=content))
    return [question for question, given in zip(questions, answers, strict=True) if given["status"]["allowed"]]


def _split(text: str) -> list[Any]:
    """The documents of an answer that holds one after the other."""
    answers: list[Any] = []
    while text := text.lstrip():
        answer, end = json.JSONDecoder().raw_decode(text)
        answers.append(answer)
        text = text[end:]
    return answers


def _describe(question: Question) -> dict[str, str]:
    verb, group, resource, namespace = question
    resource, _, subresource = resource.partition("/")
    described = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
    return described | ({"namespace": namespace} if namespace else {})


def _list_rules(kubectl: Kubectl, account: tuple[str, str]) -> list[Any]:
    """What an account may do in its namespace beyond what Kubernetes lets every account: ask who it is and what it may
    do, and read the authorities that the cluster publishes.
    """
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": account[0]},
    }
    user = f"--as=system:serviceaccount:{account[0]}:{account[1]}"
    # Without checking the question first, which would need a right that the account has not.
    options = (user, "--validate=false", "--filename=-", "--output=json")
    answer = kubectl("create", *options, content=json.dumps(review))
    rules = json.loads(answer)["status"]["resourceRules"]
    common = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "clustertrustbundles"}
    return [rule for rule in rules if not set(rule["resources"]) <= common]
