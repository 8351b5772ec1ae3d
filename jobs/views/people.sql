-- people: one row per scored person of each row of `latest`. DuckDB.
CREATE VIEW people AS
SELECT
    video_id, uri, version, settings_id, scan_date,
    person.person_id, person.p_fake, person.verdict, person.logit,
    person.windows, person.start_s, person.end_s, threshold_flag, threshold_uncertain
FROM (
    SELECT
        video_id, uri, version, settings_id, scan_date, threshold_flag, threshold_uncertain,
        unnest(persons) AS person
    FROM latest
)
