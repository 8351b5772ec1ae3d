-- latest: one row per version of a video. Trial runs are left out; of several settings those that were used
-- last on that video count, and of several attempts the last. That a manifest named a video which was not there
-- ('not-found') is left out as soon as the video has been found.
--
-- The keys are narrowed down first: a window over whole rows would carry every box of every face along.
CREATE VIEW latest AS
WITH tried AS (
    SELECT uri, version, settings_id, max(attempt) AS attempt, max(scanned_at) AS scanned_at
    FROM results
    WHERE NOT shadow
    GROUP BY uri, version, settings_id
),
ranked AS (
    SELECT
        uri, version, settings_id, attempt,
        row_number() OVER (PARTITION BY uri, version ORDER BY scanned_at DESC, settings_id) AS place,
        scanned_at, max(CASE WHEN version <> 'not-found' THEN scanned_at END) OVER (PARTITION BY uri) AS found_at
    FROM tried
)
SELECT results.*
FROM results
INNER JOIN ranked
    ON results.uri = ranked.uri
    AND results.version = ranked.version
    AND results.settings_id = ranked.settings_id
    AND results.attempt = ranked.attempt
WHERE
    ranked.place = 1 AND NOT results.shadow
    AND (results.version <> 'not-found' OR ranked.found_at IS NULL OR ranked.found_at < ranked.scanned_at)
