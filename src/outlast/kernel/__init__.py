"""The kernel's door: what rooms, pages and commands may use of it."""

from outlast.kernel.backup import FILE_MAX_BYTES as BACKUP_MAX_BYTES
from outlast.kernel.backup import BackupBody, open_backup
from outlast.kernel.backup import count as count_backup
from outlast.kernel.bundle import MAGIC as BUNDLE_MAGIC
from outlast.kernel.bundle import MIN_BYTES as BUNDLE_MIN_BYTES
from outlast.kernel.bundle import BundleError
from outlast.kernel.database import Transaction
from outlast.kernel.devices import OwnDevice
from outlast.kernel.discovery import Discovery
from outlast.kernel.entry import CLOCK_MAX, CONTENT_MAX_BYTES, DAY_MS, Entry
from outlast.kernel.footprint import Footprint, let_go_of_carried, measure_disk
from outlast.kernel.groups import Group, Said
from outlast.kernel.home import Home, wipe_secret, write_secret
from outlast.kernel.identity import (
    JOINERS,
    SHARES_MAX,
    Device,
    SigningKey,
    check_name,
    device_key,
    entropy_of,
    fingerprint_words,
    id_text,
    key_of_seed,
    node_text,
    parse_id,
    parse_node,
    parse_space,
    read_certificate,
    space_text,
    spelled,
    told_apart,
    verify,
)
from outlast.kernel.invite import make_channel_link, parse_channel
from outlast.kernel.kinds import Kind
from outlast.kernel.links.link import Cost, Duplex, Link, LinkError, Way
from outlast.kernel.links.tcp import TcpLink
from outlast.kernel.mail import LETTER_MAX_BYTES
from outlast.kernel.membership import Membership
from outlast.kernel.neighbours import PeerState
from outlast.kernel.node import Node, find_rooms
from outlast.kernel.packing import Packing, parcels_here, progress_of, read_parcels, strange_parcels
from outlast.kernel.parcel import FILE_MAX_BYTES, PARCEL_LIFE_DAYS, PARCELS_MAX, ParcelError, counts_of
from outlast.kernel.person import Contact, ContactDevice, Custody, Person
from outlast.kernel.revocation import REVOKE, is_ended, revocation_in
from outlast.kernel.room import (
    Change,
    Delete,
    Event,
    Letter,
    Level,
    Put,
    Room,
    RowChange,
    RowChanges,
    Rows,
    Status,
    Taken,
    Update,
    Value,
)
from outlast.kernel.space import GENESIS, SIGNERS_MAX, SpaceBody, read_genesis
from outlast.kernel.trips import PEEK_BYTES, BundleReport, Glance

__all__ = [
    "BACKUP_MAX_BYTES",
    "BUNDLE_MAGIC",
    "BUNDLE_MIN_BYTES",
    "CLOCK_MAX",
    "CONTENT_MAX_BYTES",
    "DAY_MS",
    "FILE_MAX_BYTES",
    "GENESIS",
    "JOINERS",
    "LETTER_MAX_BYTES",
    "PARCELS_MAX",
    "PARCEL_LIFE_DAYS",
    "PEEK_BYTES",
    "REVOKE",
    "SHARES_MAX",
    "SIGNERS_MAX",
    "BackupBody",
    "BundleError",
    "BundleReport",
    "Change",
    "Contact",
    "ContactDevice",
    "Cost",
    "Custody",
    "Delete",
    "Device",
    "Discovery",
    "Duplex",
    "Entry",
    "Event",
    "Footprint",
    "Glance",
    "Group",
    "Home",
    "Kind",
    "Letter",
    "Level",
    "Link",
    "LinkError",
    "Membership",
    "Node",
    "OwnDevice",
    "Packing",
    "ParcelError",
    "PeerState",
    "Person",
    "Put",
    "Room",
    "RowChange",
    "RowChanges",
    "Rows",
    "Said",
    "SigningKey",
    "SpaceBody",
    "Status",
    "Taken",
    "TcpLink",
    "Transaction",
    "Update",
    "Value",
    "Way",
    "check_name",
    "count_backup",
    "counts_of",
    "device_key",
    "entropy_of",
    "find_rooms",
    "fingerprint_words",
    "id_text",
    "is_ended",
    "key_of_seed",
    "let_go_of_carried",
    "make_channel_link",
    "measure_disk",
    "node_text",
    "open_backup",
    "parcels_here",
    "parse_channel",
    "parse_id",
    "parse_node",
    "parse_space",
    "progress_of",
    "read_certificate",
    "read_genesis",
    "read_parcels",
    "revocation_in",
    "space_text",
    "spelled",
    "strange_parcels",
    "told_apart",
    "verify",
    "wipe_secret",
    "write_secret",
]
