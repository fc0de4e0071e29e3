"""Roles, services, and the permissions that they give. A permission is `resource:action`."""

from collections.abc import Iterable, Mapping

_READ = frozenset(
    f"{resource}:read"
    for resource in (
        *("products", "warehouses", "stock", "movements", "reservations", "integrity"),
        *("customers", "orders", "suppliers", "purchase-orders"),
    )
)

_WAREHOUSE = _READ | {"movements:write", "reservations:write", "orders:ship", "returns:write", "receipts:write"}
_SALES = _READ | {"reservations:write", "customers:write", "orders:write", "returns:write"}
_PURCHASING = _READ | {"products:write", "suppliers:write", "purchase-orders:write", "receipts:write"}
_MANAGER = _WAREHOUSE | _SALES | _PURCHASING | {"warehouses:write", "purchase-orders:approve", "users:read"}
_ADMIN = _MANAGER | {"users:write", "audit:read"}

ROLES: Mapping[str, tuple[str, frozenset[str]]] = {
    "admin": ("Everything, accounts included.", _ADMIN),
    "manager": ("All of the daily business, approvals included.", _MANAGER),
    "warehouse": ("Receives, moves, ships and takes returns.", _WAREHOUSE),
    "sales": ("Customers, orders and reservations.", _SALES),
    "purchasing": ("Products, suppliers and purchase orders.", _PURCHASING),
    "auditor": ("Reads everything, the audit log included.", _READ | {"audit:read", "users:read"}),
    "viewer": ("Reads products, stock and orders.", _READ),
}

SERVICE_PERMISSIONS: Mapping[str, frozenset[str]] = {
    "user-service": frozenset(),
    "product-catalog-service": frozenset(),
    "inventory-service": frozenset({"products:read", "events:read", "integrity:read"}),
    "order-service": frozenset(
        {
            "products:read",
            "warehouses:read",
            "reservations:write",
            "reservations:read",
            "movements:write",
            "movements:read",
            "stock:read",
            "events:read",
        }
    ),
    "supplier-service": frozenset({"products:read", "movements:write", "movements:read", "stock:read", "events:read"}),
}


def permissions_of(roles: Iterable[str]) -> frozenset[str]:
    """The union of what these roles give; an unknown role gives nothing."""
    return frozenset(permission for role in roles if role in ROLES for permission in ROLES[role][1])
