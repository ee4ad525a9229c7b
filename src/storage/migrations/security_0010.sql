-- 10
-- Events are listed by address as people count addresses (SPEC §9.4): first those without one, then IPv4 by number, then IPv6
-- by text. One address is found by the same index, so that of the text goes. JSON takes an IPv4 address apart, and whatever is
-- none stays a text. `storage/audit_logs.rs` says the same expression; a test compares the plans.
DROP INDEX audit_logs_address;
CREATE INDEX audit_logs_by_address ON audit_logs (
    CASE WHEN address IS NULL THEN -1
    WHEN json_valid('[' || replace(address, '.', ',') || ']') THEN coalesce(
        (json_extract('[' || replace(address, '.', ',') || ']', '$[0]') << 24)
            + (json_extract('[' || replace(address, '.', ',') || ']', '$[1]') << 16)
            + (json_extract('[' || replace(address, '.', ',') || ']', '$[2]') << 8)
            + json_extract('[' || replace(address, '.', ',') || ']', '$[3]'),
        address)
    ELSE address END,
    sequence);
