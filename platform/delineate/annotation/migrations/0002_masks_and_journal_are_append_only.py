"""What was accepted, and how it came about, is never changed: the database refuses it.

Rows go only with their study (ON DELETE is Django's, and allowed).
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION annotation_refuse_update() RETURNS trigger AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$ LANGUAGE plpgsql;
CREATE TRIGGER annotation_maskrevision_append_only BEFORE UPDATE ON annotation_maskrevision
    FOR EACH ROW EXECUTE FUNCTION annotation_refuse_update();
CREATE TRIGGER annotation_operation_append_only BEFORE UPDATE ON annotation_operation
    FOR EACH ROW EXECUTE FUNCTION annotation_refuse_update();
"""
BACKWARD = """
DROP TRIGGER annotation_maskrevision_append_only ON annotation_maskrevision;
DROP TRIGGER annotation_operation_append_only ON annotation_operation;
DROP FUNCTION annotation_refuse_update();
"""


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
