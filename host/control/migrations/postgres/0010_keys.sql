-- Keys that have been dead for long are forgotten. One without an end cannot be deleted.
CREATE POLICY dead_keys ON api_key FOR DELETE TO control_plane
    USING (revoked_at IS NOT NULL OR expires_at IS NOT NULL);

GRANT DELETE ON api_key TO control_plane;
