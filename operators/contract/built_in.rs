//! Families of the built-in types, by the object ids that PostgreSQL fixes (`pg_type.dat`).

use super::ColumnType;

impl ColumnType {
    /// The family of a built-in scalar type; none of any other type, whose kind the catalog says.
    #[must_use]
    pub fn built_in(oid: u32, modifier: i32) -> Option<Self> {
        Some(match oid {
            16 => ColumnType::Bool,
            17 => ColumnType::Bytea,
            18 | 19 | 25 | 1042 | 1043 => ColumnType::Text,
            20 => ColumnType::Int8,
            21 => ColumnType::Int2,
            23 => ColumnType::Int4,
            26 | 28 | 29 => ColumnType::Oid,
            114 => ColumnType::Json,
            700 => ColumnType::Float4,
            701 => ColumnType::Float8,
            1082 => ColumnType::Date,
            1083 => ColumnType::Time,
            1114 => ColumnType::Timestamp,
            1184 => ColumnType::TimestampTz,
            1186 => ColumnType::Interval,
            1266 => ColumnType::TimeTz,
            1700 => numeric(modifier),
            2950 => ColumnType::Uuid,
            3802 => ColumnType::Jsonb,
            _ => return None,
        })
    }
}

/// `atttypmod` of a numeric is `((precision << 16) | (scale & 0x7ff)) + 4`, the scale signed
/// (PostgreSQL source, `numeric.c`, `make_numeric_typmod`).
fn numeric(modifier: i32) -> ColumnType {
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else { return ColumnType::NumericText };
    let precision = packed >> 16 & 0xffff;
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    match (u8::try_from(precision), u8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale @ 0..=37)) if scale <= precision => ColumnType::Numeric { precision, scale },
        _ => ColumnType::NumericText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers() {
        let packed = |precision: i32, scale: i32| (precision << 16 | (scale & 0x7ff)) + 4;
        for (modifier, precision, scale) in
            [(packed(10, 2), 10, 2), (packed(38, 37), 38, 37), (packed(38, 0), 38, 0), (packed(1, 1), 1, 1), (packed(37, 37), 37, 37)]
        {
            assert_eq!(numeric(modifier), ColumnType::Numeric { precision, scale });
        }
        for modifier in [-1, 0, 3, i32::MIN, i32::MAX, packed(39, 0), packed(38, 38), packed(2, 3), packed(5, -2), packed(1000, 10)] {
            assert_eq!(numeric(modifier), ColumnType::NumericText, "{modifier}");
        }
    }
}
