-- people: one row per scored person of each row of `latest`. Athena (Trino).
CREATE VIEW people AS
SELECT
    video_id, uri, version, settings_id, scan_date,
    person_id, p_fake, verdict, logit, windows, start_s, end_s, threshold_flag, threshold_uncertain
FROM (
    SELECT video_id, uri, version, settings_id, scan_date, threshold_flag, threshold_uncertain, persons FROM latest
)
CROSS JOIN UNNEST(persons) AS person (person_id, start_s, end_s, windows, logit, p_fake, verdict)
