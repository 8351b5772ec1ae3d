-- current: one row per video as it is now, that is the row of `latest` for the version that was changed last.
CREATE VIEW current AS
WITH ranked AS (
    SELECT
        uri, version,
        row_number() OVER (PARTITION BY uri ORDER BY modified_at DESC, scanned_at DESC, version) AS place
    FROM latest
)
SELECT latest.*
FROM latest
INNER JOIN ranked
    ON latest.uri = ranked.uri
    AND latest.version = ranked.version
WHERE ranked.place = 1
