"""What a warehouse watches: movements, reservations granted and refused, and what was asked for in vain."""

from prometheus_client import Counter

MOVEMENTS = Counter("stockade_movements_total", "Movements posted.", ("type",))
RESERVATIONS = Counter("stockade_reservations_total", "Reservations by outcome.", ("outcome",))
STOCK_OUTS = Counter("stockade_stock_outs_total", "Lines that asked for more than was available.")
