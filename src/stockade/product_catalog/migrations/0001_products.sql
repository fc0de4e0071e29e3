-- Units, categories, products, their barcodes, and the history of every change.

-- Built in: the codes are those of UN/ECE Recommendation 20 (units of measure) and, for packages, of Recommendation 21,
-- to which Recommendation 20 hands them over.
CREATE TABLE units (
    code text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    recommendation smallint NOT NULL CHECK (recommendation IN (20, 21)),
    unece_code text NOT NULL UNIQUE
);
INSERT INTO units (code, name, recommendation, unece_code) VALUES
    ('bag', 'bag', 21, 'BG'),
    ('box', 'box', 21, 'BX'),
    ('case', 'case', 21, 'CS'),
    ('cl', 'centilitre', 20, 'CLT'),
    ('cm', 'centimetre', 20, 'CMT'),
    ('dozen', 'dozen', 20, 'DZN'),
    ('each', 'each', 20, 'EA'),
    ('foot', 'foot', 20, 'FOT'),
    ('g', 'gram', 20, 'GRM'),
    ('hour', 'hour', 20, 'HUR'),
    ('inch', 'inch', 20, 'INH'),
    ('kg', 'kilogram', 20, 'KGM'),
    ('l', 'litre', 20, 'LTR'),
    ('lb', 'pound', 20, 'LBR'),
    ('m', 'metre', 20, 'MTR'),
    ('m2', 'square metre', 20, 'MTK'),
    ('m3', 'cubic metre', 20, 'MTQ'),
    ('mg', 'milligram', 20, 'MGM'),
    ('ml', 'millilitre', 20, 'MLT'),
    ('mm', 'millimetre', 20, 'MMT'),
    ('one', 'one', 20, 'C62'),
    ('oz', 'ounce', 20, 'ONZ'),
    ('pack', 'pack', 21, 'PK'),
    ('pair', 'pair', 20, 'PR'),
    ('piece', 'piece', 20, 'H87'),
    ('roll', 'roll', 21, 'RO'),
    ('set', 'set', 20, 'SET'),
    ('t', 'tonne', 20, 'TNE');
GRANT SELECT ON units TO :service_role;

-- The depth is part of the reference to the parent, so a cycle has no depth that it could be stored with.
CREATE TABLE categories (
    code text COLLATE "C" PRIMARY KEY CHECK (code ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$'),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    parent text COLLATE "C",
    depth smallint NOT NULL CHECK (depth BETWEEN 1 AND 8),
    parent_depth smallint GENERATED ALWAYS AS (depth - 1) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    UNIQUE (code, depth),
    FOREIGN KEY (parent, parent_depth) REFERENCES categories (code, depth),
    CHECK ((parent IS NULL) = (depth = 1))
);
CREATE INDEX categories_parent ON categories (parent);
GRANT SELECT, INSERT ON categories TO :service_role;

CREATE TABLE products (
    id uuid PRIMARY KEY,
    sku text COLLATE "C" NOT NULL UNIQUE CHECK (sku ~ '^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$'),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    description text CHECK (char_length(description) BETWEEN 1 AND 2000),
    unit text COLLATE "C" NOT NULL REFERENCES units,
    tracking text NOT NULL CHECK (tracking IN ('none', 'lot', 'serial')),
    category text COLLATE "C" REFERENCES categories,
    price numeric(18, 6) CHECK (price >= 0),
    attributes jsonb NOT NULL CHECK (jsonb_typeof(attributes) = 'object'),
    is_active boolean NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    -- Words are what lies between ASCII punctuation and space: PostgreSQL's own parser would take "24/7" for a path.
    name_words tsvector NOT NULL GENERATED ALWAYS AS (
        array_to_tsvector(array_remove(regexp_split_to_array(lower(name), '[\s!-/:-@\[-`{-~]+'), ''))
    ) STORED
);
CREATE INDEX products_sku_folded ON products (lower(sku));
CREATE INDEX products_name_words ON products USING gin (name_words);
CREATE INDEX products_category ON products (category, sku);
-- What stock is counted in (unit) and by (tracking) cannot change, nor what others know a product by.
GRANT SELECT, INSERT ON products TO :service_role;
GRANT UPDATE (name, description, category, price, attributes, is_active, version, updated_at) ON products TO :service_role;

-- The check digit of a GTIN (GS1 General Specifications, section 7.9) padded to 14 digits: weights 3 and 1 in turn, the
-- check digit itself having 1, add up to a multiple of ten.
CREATE FUNCTION is_gtin(digits text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sum(substr(digits, place, 1)::integer * CASE place % 2 WHEN 1 THEN 3 ELSE 1 END) % 10 = 0
      FROM generate_series(1, 14) AS place
$$;
GRANT EXECUTE ON FUNCTION is_gtin TO :service_role;

-- The key is what makes two codes the same barcode: a scanner may give a GTIN-12 as a GTIN-13 with a zero in front.
CREATE TABLE barcodes (
    key text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN code ~ '^[0-9]+$' AND length(code) IN (8, 12, 13, 14) THEN lpad(code, 14, '0') ELSE code END
    ) STORED PRIMARY KEY,
    code text COLLATE "C" NOT NULL CHECK (code ~ '^[\x21-\x7e]{1,80}$'),
    product_id uuid NOT NULL REFERENCES products,
    place smallint NOT NULL CHECK (place BETWEEN 1 AND 20),
    UNIQUE (product_id, place),
    CONSTRAINT barcodes_check_digit CHECK (
        CASE WHEN code ~ '^[0-9]+$' AND length(code) IN (8, 12, 13, 14) THEN is_gtin(lpad(code, 14, '0')) ELSE true END
    )
);
GRANT SELECT, INSERT, DELETE ON barcodes TO :service_role;
-- A row lock asks for the right to update some column; nothing updates this one.
GRANT UPDATE (place) ON barcodes TO :service_role;

CREATE TABLE product_changes (
    product_id uuid NOT NULL REFERENCES products,
    version integer NOT NULL CHECK (version >= 1),
    at timestamptz NOT NULL,
    actor text NOT NULL,
    changes jsonb NOT NULL CHECK (jsonb_typeof(changes) = 'object' AND changes <> '{}'),
    PRIMARY KEY (product_id, version)
);
-- Append-only: nobody but the owner of the schema can change or remove an entry.
GRANT SELECT, INSERT ON product_changes TO :service_role;
