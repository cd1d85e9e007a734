ALTER TABLE phrases
    DROP CONSTRAINT phrases_parent_check,
    DROP CONSTRAINT phrases_word_check;

COMMENT ON COLUMN phrases.parent IS 'packed: per phrase, the id of its prefix';

COMMENT ON COLUMN phrases.word IS 'packed: per phrase, its last word';
