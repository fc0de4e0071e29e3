"""A real Kubernetes cluster on one Linux machine, without a registry, a virtual machine or a container to start from.

The lab owns a network namespace, a directory in the user's cache and the processes that it starts there: etcd, the API
server with its controllers and scheduler, metrics-server, and three nodes whose kubelet is simulated by kwok. On demand
two real nodes join, with a network namespace each. All of it is built from Go modules by the versions in `lab/modules`,
once, and kept outside the tree.

It promises that everything in the control plane is the upstream program with our audit policy, encryption and
admission, that `down` leaves nothing behind, and that a machine which cannot run it is told so in one line.

What it cannot show: pods on simulated nodes never run a process, so that they prove no image, probe or packet. Real
nodes run whatever images are loaded on them, and have no name server and no enforcer of NetworkPolicies yet.
"""
